//! Finds the payment link of an event, and compares the event with the link.
//!
//! The link is found by the id of the session or PaymentIntent. Metadata, which only the Stripe
//! account itself can write, is used only while that id is unknown because Stripe's response to the
//! creation has not arrived yet.

use std::collections::HashSet;

use super::{
    event::{Kind, StripeEvent, StripeObject},
    locking::Link,
};
use crate::{
    carts::CartId,
    db::Connection,
    payment_links::{Expected, Mismatch, Payment},
};

/// The meaning of an event about a session of a payment link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Paid,
    /// A change other than a payment.
    Other(Change),
}

/// The status change of a link by an event that does not report a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Processing,
    PaymentFailed,
    Closed,
}

/// The relation of an event to the payment links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// The event is about the session of this link ([`Links::at`]), and matches the link.
    Ours { link: usize, meaning: Meaning },
    /// The event is about a session of this cart, and does not match its link.
    Mismatch { cart: String, why: Mismatch },
    /// The event names this cart, but is about none of its sessions.
    NotOurs { cart: String, why: Mismatch },
    /// The event names no known cart or session.
    Unknown,
}

/// How the link of an event was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// By the id of the link's session or PaymentIntent.
    Id,
    /// By the event's metadata, because that id is not known yet.
    Metadata,
}

/// The locked links that events may be about, and the ids learned from the events.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Link>,
    /// Indexes of links with ids that are not stored yet.
    unsaved: HashSet<usize>,
    /// PaymentIntents of links that were attached, and have refunds or disputes already.
    early_reversals: HashSet<String>,
}

impl Links {
    pub(super) fn new(links: Vec<Link>) -> Self {
        Self { links, unsaved: HashSet::new(), early_reversals: HashSet::new() }
    }

    /// Finds the cart and link of the event. Attaches the event's session and PaymentIntent to the
    /// link.
    pub(super) fn find(&mut self, event: &StripeEvent, kind: Kind, carts: &HashSet<String>) -> Match {
        let found = match kind {
            Kind::IntentSucceeded => self.of_intent(&event.object),
            _ => self.of_session(&event.object),
        };
        let found = match found {
            Err(_) if event.is_of_other_account => Err(Mismatch::OtherAccount),
            found => found,
        };
        let found = found.map(|(place, by)| (place, by, self.meaning(place, event, kind)));
        match found {
            Ok((place, _, Ok(meaning))) => {
                self.attach(place, &event.object, kind);
                Match::Ours { link: place, meaning }
            }
            Ok((place, By::Id, Err(why))) => Match::Mismatch { cart: self.links[place].cart_id.clone(), why },
            Ok((_, By::Metadata, Err(why))) | Err(why) => {
                let is_known =
                    |cart: &&str| carts.contains(*cart) || self.links.iter().any(|link| link.cart_id == **cart);
                let cart = event.object.named_carts().map(CartId::as_str).find(is_known);
                let Some(cart) = cart else { return Match::Unknown };
                let in_metadata = event.object.cart_id.as_ref().is_some_and(|named| named.as_str() == cart);
                let why = match why {
                    Mismatch::UnknownSession if in_metadata => Mismatch::OtherSession,
                    why => why,
                };
                Match::NotOurs { cart: cart.to_owned(), why }
            }
        }
    }

    fn of_session(&self, object: &StripeObject) -> Result<(usize, By), Mismatch> {
        let Some(id) = object.id.as_deref() else { return Err(Mismatch::UnknownSession) };
        if let Some(place) = self.links.iter().position(|link| link.session_id.as_deref() == Some(id)) {
            return Ok((place, By::Id));
        }
        let place = self.named(object).ok_or(Mismatch::UnknownSession)?;
        let link = &self.links[place];
        if !link.attempted || link.session_id.is_some() {
            return Err(Mismatch::UnknownSession);
        }
        // The event of the PaymentIntent may have arrived first.
        if link.payment_intent.is_some() && link.payment_intent != object.payment_intent {
            return Err(Mismatch::OtherPaymentIntent);
        }
        Ok((place, By::Metadata))
    }

    fn of_intent(&self, object: &StripeObject) -> Result<(usize, By), Mismatch> {
        let Some(id) = object.id.as_deref() else { return Err(Mismatch::UnknownSession) };
        if let Some(place) = self.with_intent(id) {
            return Ok((place, By::Id));
        }
        let place = self.named(object).ok_or(Mismatch::UnknownSession)?;
        match &self.links[place] {
            link if link.payment_intent.is_some() => Err(Mismatch::OtherPaymentIntent),
            link if !link.attempted => Err(Mismatch::UnknownSession),
            _ => Ok((place, By::Metadata)),
        }
    }

    /// The link that the object's metadata names.
    fn named(&self, object: &StripeObject) -> Option<usize> {
        let (cart, version) = (object.cart_id.as_ref()?.as_str(), object.link_version?);
        self.links.iter().position(|link| link.cart_id == cart && link.version == version)
    }

    fn with_intent(&self, id: &str) -> Option<usize> {
        self.links.iter().position(|link| link.payment_intent.as_deref() == Some(id))
    }

    /// The link with this PaymentIntent.
    pub(super) fn of_payment(&self, intent: &str) -> Option<&Link> {
        self.with_intent(intent).map(|place| &self.links[place])
    }

    /// The links that were given a PaymentIntent whose refunds or disputes arrived before.
    pub(super) fn with_early_reversals(&self) -> impl Iterator<Item = &Link> {
        self.early_reversals.iter().filter_map(|intent| self.of_payment(intent))
    }

    /// Whether some payment of the cart was refunded, before these events.
    pub(super) fn has_refunds(&self, cart: &str) -> bool {
        self.links.iter().any(|link| link.refunded && link.cart_id == cart)
    }

    fn meaning(&self, place: usize, event: &StripeEvent, kind: Kind) -> Result<Meaning, Mismatch> {
        if event.is_of_other_account {
            return Err(Mismatch::OtherAccount);
        }
        let (link, object) = (&self.links[place], &event.object);
        let expected = Expected {
            amount_minor: link.amount_minor,
            currency: link.currency.clone(),
            livemode: link.livemode,
            total_may_differ: link.total_may_differ,
        };
        let is = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
        if kind == Kind::IntentSucceeded {
            if !is(&object.object, "payment_intent") {
                return Err(Mismatch::OtherObject);
            }
            if !is(&object.status, "succeeded") {
                return Err(Mismatch::Status);
            }
            return expected.check_intent(&object.reported).map(|()| Meaning::Paid);
        }
        if !is(&object.object, "checkout.session") {
            return Err(Mismatch::OtherObject);
        }
        // Sessions of old API versions have no status.
        let status = if kind == Kind::Expired { "expired" } else { "complete" };
        if object.status.is_some() && !is(&object.status, status) {
            return Err(Mismatch::Status);
        }
        expected.check_session(&object.reported)?;
        if let Some(intent) = object.payment_intent.as_deref() {
            let is_another = link.payment_intent.as_deref().is_some_and(|known| known != intent);
            if is_another || self.with_intent(intent).is_some_and(|other| other != place) {
                return Err(Mismatch::OtherPaymentIntent);
            }
        }
        match kind {
            Kind::Expired => Ok(Meaning::Other(Change::Closed)),
            Kind::MoneyFailed => Ok(Meaning::Other(Change::PaymentFailed)),
            _ => match expected.payment(&object.reported)? {
                Payment::Paid => Ok(Meaning::Paid),
                Payment::Processing if kind == Kind::Completed => Ok(Meaning::Other(Change::Processing)),
                Payment::Processing => Err(Mismatch::PaymentStatus),
            },
        }
    }

    fn attach(&mut self, place: usize, object: &StripeObject, kind: Kind) {
        let (session, intent) = object.ids(kind);
        let link = &mut self.links[place];
        let is_new = |known: &Option<String>, id: Option<&str>| known.is_none() && id.is_some();
        if is_new(&link.session_id, session) || is_new(&link.payment_intent, intent) {
            link.session_id = link.session_id.take().or(session.map(str::to_owned));
            link.payment_intent = link.payment_intent.take().or(intent.map(str::to_owned));
            link.livemode = link.livemode.or(object.reported.livemode);
            self.unsaved.insert(place);
        }
    }

    /// The link of a [`Match::Ours`].
    pub(super) fn at(&self, place: usize) -> &Link {
        &self.links[place]
    }

    /// Records that refunds or disputes of the link's payment arrived before it.
    pub(super) fn note_early_reversals(&mut self, place: usize) {
        self.early_reversals.extend(self.links[place].payment_intent.clone());
    }

    /// Stores the attached ids, except those of links that `payment_links::paid` is going to mark as
    /// paid, with their ids.
    pub(super) async fn save_attached(&mut self, conn: &mut Connection, paid: &HashSet<usize>) -> sqlx::Result<()> {
        let unsaved = self.unsaved.iter().map(|place| (place, &self.links[*place]));
        let unsaved = unsaved.filter(|(place, link)| link.is_paid || !paid.contains(place));
        let unsaved: Vec<&Link> = unsaved.map(|(_, link)| link).collect();
        if unsaved.is_empty() {
            return Ok(());
        }
        let carts: Vec<&str> = unsaved.iter().map(|link| link.cart_id.as_str()).collect();
        let versions: Vec<i32> = unsaved.iter().map(|link| link.version).collect();
        let sessions: Vec<Option<&str>> = unsaved.iter().map(|link| link.session_id.as_deref()).collect();
        let intents: Vec<Option<&str>> = unsaved.iter().map(|link| link.payment_intent.as_deref()).collect();
        let livemodes: Vec<Option<bool>> = unsaved.iter().map(|link| link.livemode).collect();
        let early = sqlx::query_scalar!(
            r#"
            with saved as (
                update payment_links link
                set session_id = attached.session_id, payment_intent = attached.payment_intent, livemode = attached.livemode
                from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::boolean[])
                    as attached (cart_id, version, session_id, payment_intent, livemode)
                where link.cart_id = attached.cart_id and link.version = attached.version
                returning link.payment_intent
            )
            select payment_intent as "payment_intent!" from saved
            where exists (select from payment_reversals reversal where reversal.payment_intent = saved.payment_intent)
            "#,
            &carts as &[&str],
            &versions,
            &sessions as &[Option<&str>],
            &intents as &[Option<&str>],
            &livemodes as &[Option<bool>],
        )
        .fetch_all(conn)
        .await?;
        self.early_reversals.extend(early);
        Ok(())
    }
}
