//! The statement that reads requests and their carts, and begins attempts.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{Attempt, Checkout, CheckoutCart, Expected, LinkStatus, NewAttempt, PaymentLink, SessionSettings};
use crate::{
    carts::{
        CartStatus,
        cart::RawJson,
        items::{stored_adjustments, stored_items},
    },
    clock::Clock,
    db::Connection,
    money::Currency,
    payment_links::request::{LONGEST_SESSION, SHORTEST_SESSION},
};

/// The shortest remaining time, in minutes, with which a session can be requested: Stripe's minimum
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>) and one
/// for the call.
const LEAST_LEFT: i32 = 31;

/// A request, its cart if there is one, and the attempt that was begun.
struct Row {
    place: i64,
    cart_id: String,
    version: i32,
    link_status: LinkStatus,
    job_id: queue::JobId,
    session_expires_at: DateTime<Utc>,
    replacements: i16,
    attempted_at: Option<DateTime<Utc>>,
    session_id: Option<String>,
    url: Option<String>,
    failure: Option<String>,
    updated_at: DateTime<Utc>,
    livemode: Option<bool>,
    settings: Option<Json<SessionSettings>>,
    now: DateTime<Utc>,
    expected_minor: Option<i64>,
    expected_currency: Option<String>,
    customer_email: Option<String>,
    items: Option<RawJson>,
    adjustments: Option<RawJson>,
    total_minor: Option<i64>,
    external_id: Option<String>,
    locale: Option<String>,
    currency: Option<Currency>,
    status: Option<CartStatus>,
    token: Option<String>,
    has_unsettled: bool,
    begun_settings: Option<Json<SessionSettings>>,
    begun_session_expires_at: Option<DateTime<Utc>>,
}

/// Reads the requests; with `settings`, begins those attempts that may begin ([`super::begin`]).
pub(super) async fn read_and_begin(
    conn: &mut Connection,
    attempts: &[NewAttempt],
    settings: Option<&SessionSettings>,
    livemode: Option<bool>,
    clock: &Clock,
) -> sqlx::Result<Vec<Option<Checkout>>> {
    let carts: Vec<&str> = attempts.iter().map(|attempt| attempt.cart_id.as_str()).collect();
    let versions: Vec<i32> = attempts.iter().map(|attempt| attempt.version).collect();
    let closed: Vec<bool> = attempts.iter().map(|attempt| attempt.older_are_closed).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        with checkout as materialized (
            select link.*, wanted.place, wanted.older_are_closed, link.status as link_status,
                   coalesce($4::timestamptz, now()) as now,
                   coalesce(link.amount_minor, total_minor) as expected_minor,
                   coalesce(link.currency, carts.currency) as expected_currency,
                   carts.customer_email, carts.items, carts.adjustments, carts.total_minor, carts.external_id, carts.locale,
                   carts.currency as cart_currency, carts.status as cart_status, token,
                   exists (select from payment_links older where older.cart_id = link.cart_id and older.version < link.version
                           and older.status in ('open', 'closing', 'settling', 'processing')) as has_unsettled
            from unnest($1::text[], $2::integer[], $3::boolean[]) with ordinality
                as wanted (cart_id, version, older_are_closed, place)
            join payment_links link on link.cart_id = wanted.cart_id and link.version = wanted.version
            left join (carts join recovery_links on recovery_links.cart_id = carts.id and token is not null)
                on carts.id = link.cart_id
        ), begun as (
            update payment_links link
            set attempted_at = coalesce(link.attempted_at, $5), livemode = coalesce($6, link.livemode), updated_at = $5,
                settings = case when link.settings ? 'publicUrl' then link.settings
                                else $7::jsonb || coalesce(link.settings, '{}') end,
                session_expires_at = case
                    when link.attempted_at is null and link.session_expires_at < now + make_interval(mins => $8)
                    then (select least(greatest(max(recovery.expires_at), now + make_interval(mins => $9)),
                                       now + make_interval(mins => $10))
                          from recovery_links recovery where recovery.cart_id = link.cart_id)
                    else link.session_expires_at end
            from checkout
            where $7::jsonb is not null and link.cart_id = checkout.cart_id and link.version = checkout.version
              and link.status = 'pending' and cart_status = 'abandoned' and (older_are_closed or not has_unsettled)
            returning link.cart_id, link.version, link.settings, link.session_expires_at
        )
        select place as "place!", checkout.cart_id, checkout.version, link_status as "link_status: LinkStatus", job_id,
               checkout.session_expires_at,
               replacements, attempted_at, session_id, url, failure, updated_at, livemode,
               case when checkout.settings ? 'publicUrl' then checkout.settings end as "settings: Json<SessionSettings>",
               now as "now!", expected_minor, expected_currency, customer_email as "customer_email?",
               items as "items?: RawJson", adjustments as "adjustments?: RawJson", total_minor as "total_minor?",
               external_id as "external_id?", locale as "locale?", cart_currency as "currency?: Currency",
               cart_status as "status?: CartStatus", token as "token?", has_unsettled as "has_unsettled!",
               begun.settings as "begun_settings?: Json<SessionSettings>",
               begun.session_expires_at as "begun_session_expires_at?"
        from checkout left join begun on begun.cart_id = checkout.cart_id and begun.version = checkout.version
        "#,
        &carts as &[&str],
        &versions,
        &closed,
        clock.stopped(),
        clock.now(),
        livemode,
        settings.map(Json) as _,
        LEAST_LEFT,
        SHORTEST_SESSION,
        LONGEST_SESSION,
    )
    .fetch_all(conn)
    .await?;
    let mut checkouts: Vec<Option<Checkout>> = attempts.iter().map(|_| None).collect();
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        if let Some(checkout) = place.and_then(|place| checkouts.get_mut(place)) {
            *checkout = Some(row.into());
        }
    }
    Ok(checkouts)
}

impl From<Row> for Checkout {
    fn from(mut row: Row) -> Self {
        let settings = row.settings.take().map(|settings| settings.0);
        let expected = Expected {
            amount_minor: row.expected_minor,
            currency: row.expected_currency.take(),
            livemode: row.livemode,
            total_may_differ: settings.as_ref().is_some_and(SessionSettings::total_may_differ),
        };
        let begun = row.begun_settings.take().zip(row.begun_session_expires_at);
        Self {
            settings,
            has_unsettled: row.has_unsettled,
            now: row.now,
            attempt: begun.map(|(settings, session_expires_at)| Attempt { settings: settings.0, session_expires_at }),
            cart: row.cart(expected),
            link: PaymentLink {
                cart_id: row.cart_id,
                version: row.version,
                status: row.link_status,
                job_id: row.job_id,
                session_expires_at: row.session_expires_at,
                replacements: row.replacements,
                attempted_at: row.attempted_at,
                session_id: row.session_id,
                url: row.url,
                failure: row.failure,
                updated_at: row.updated_at,
            },
        }
    }
}

impl Row {
    /// Takes the cart; `None` if it was deleted.
    fn cart(&mut self, expected: Expected) -> Option<CheckoutCart> {
        let currency = self.currency?;
        Some(CheckoutCart {
            customer_email: self.customer_email.take()?,
            items: stored_items(&self.items.take()?.0, currency),
            adjustments: stored_adjustments(&self.adjustments.take()?.0, currency),
            total_minor: self.total_minor?,
            currency,
            external_id: self.external_id.take(),
            locale: self.locale.take(),
            status: self.status?,
            recovery_token: self.token.take()?,
            expected,
        })
    }
}
