//! The timeline of a cart: what happened to it, when and why.
//!
//! Most of it is read from the rows of the cart and its payment links, which
//! tell their own latest events; `migrations/20261124001000_cart_events.sql`
//! says how what an update would erase gets into `cart_events`. This file reads,
//! and notes what no row tells.

mod summary;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize, de::IntoDeserializer};
use serde_json::{Map, Value};
use sqlx::types::Json;

use crate::{
    carts::CartId,
    db::{Connection, Database},
};

/// What can happen to a cart. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was stored; `why` says by whom: `api` or `import`.
    Created,
    /// The shopper followed the recovery link; `why` says what was found: see [`Opening`].
    RecoveryLinkOpened,
    /// A payment link was asked for; by `api`, `shopper`, or as a `replacement`.
    LinkRequested,
    /// Stripe made the session.
    LinkMade,
    /// There is no link, because of `why`: Stripe's code or ours.
    LinkNotMade,
    /// The shopper completed the checkout, and the money is under way.
    PaymentProcessing,
    /// The money that was under way will not come.
    PaymentFailed,
    /// The money is there.
    PaymentReceived,
    /// Money came and recovered nothing, because of `why`.
    NotRecovered,
    /// It was old enough to expire and did not, because of `why`.
    NotExpired,
    /// It expired: of `age`, by an `operator`, or before its `import`.
    Expired,
    /// It was won back: by a `payment`, by an `operator`, or before its `import`.
    Recovered,
    /// It is abandoned again.
    Reopened,
    /// The request for a link was withdrawn before there was one.
    LinkWithdrawn,
    /// Nobody can pay with that session any more.
    SessionClosed,
}

/// Something that happened to a cart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub kind: EventKind,
    /// Which payment link of the cart it is about, counted from 1.
    pub link: Option<i32>,
    /// Why, or by whom, for machines; `None` where that is not known.
    pub why: Option<String>,
    /// The same for people, in English.
    pub summary: String,
    /// What else is known: `attempts`, `recoveredAt`, `expiredAt`, `until`.
    pub details: Map<String, Value>,
    #[serde(skip)]
    place: i64,
}

/// An event, after which a page goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: DateTime<Utc>,
    place: i64,
}

/// Not a cursor that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this timeline")]
pub struct MalformedCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.timestamp_micros(), self.place)
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let (time, place) = text.rsplit_once('-').ok_or(MalformedCursor)?;
        let at: DateTime<Utc> = time.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or(MalformedCursor)?;
        // chrono knows years that Postgres does not.
        if !(1..=9999).contains(&at.year()) {
            return Err(MalformedCursor);
        }
        Ok(Self { at, place: place.parse().map_err(|_| MalformedCursor)? })
    }
}

/// A part of a timeline.
#[derive(Debug)]
pub struct TimelinePage {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// At most `limit` events of the cart, oldest first; `None`: there is no such cart.
pub async fn page(
    conn: &mut Connection,
    cart_id: &CartId,
    after: Option<Cursor>,
    limit: i64,
) -> sqlx::Result<Option<TimelinePage>> {
    let (after_at, after_place) = after.map(|cursor| (cursor.at, cursor.place)).unzip();
    let rows = sqlx::query!(
        r#"
        select told.at as "at?", told.kind as "kind?", told.link as "link?", told.why as "why?",
               told.details as "details?: Json<Map<String, Value>>", told.place as "place?"
        from carts
        left join lateral (
            -- An event may be told twice while its row is the same again as before: it is one.
            select distinct on (event.at, event.place) event.*
            from (
                select line.*, cart_event_place(line.kind, line.link) as place from cart_row_events(carts) line
                union all
                select line.*, cart_event_place(line.kind, line.link) from payment_links, payment_link_row_events(payment_links) line
                where payment_links.cart_id = $1
                union all
                select at, kind, link, why, details, place from cart_events
                where cart_events.cart_id = $1
            ) event
            where (event.at, event.place) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::bigint, -1))
            order by event.at, event.place
            limit $4
        ) told on true
        where carts.id = $1
        order by told.at, told.place
        "#,
        cart_id.as_str(),
        after_at,
        after_place,
        limit + 1, // one more than asked for tells whether there is a next page
    )
    .fetch_all(conn)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        // A cart without further events comes as one row of nothing.
        let (Some(at), Some(kind), Some(place)) = (row.at, row.kind, row.place) else { break };
        let kind = kind_of(&kind)?;
        let details = row.details.map(|details| details.0).unwrap_or_default();
        let summary = summary::of(kind, row.why.as_deref(), row.link, &details);
        events.push(Event { at, kind, link: row.link, why: row.why, summary, details, place });
    }
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = events.len() > asked_for;
    events.truncate(asked_for);
    let next = events.last().filter(|_| more).map(|event| Cursor { at: event.at, place: event.place });
    Ok(Some(TimelinePage { events, next }))
}

fn kind_of(text: &str) -> sqlx::Result<EventKind> {
    let kind: Result<EventKind, serde::de::value::Error> = EventKind::deserialize(text.into_deserializer());
    kind.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// What a shopper found who followed the recovery link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The session that is open.
    Checkout,
    /// None was open: one is being made.
    NewCheckout,
    /// Stripe refused one a moment ago: a page that looks again.
    CheckoutRefused,
    /// The page that says that a payment is under way.
    PaymentUnderWay,
    /// The page that says that the cart was paid.
    Recovered,
    /// The page that says that the cart expired.
    Expired,
    /// The page that says that the link's time is over.
    LinkExpired,
}

impl Opening {
    fn as_str(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::NewCheckout => "new_checkout",
            Self::CheckoutRefused => "checkout_refused",
            Self::PaymentUnderWay => "payment_under_way",
            Self::Recovered => "recovered",
            Self::Expired => "expired",
            Self::LinkExpired => "link_expired",
        }
    }
}

/// The shopper followed the recovery link. Of openings within a minute the first
/// is noted, of all beyond the tenth one an hour: a machine that opens it all the
/// time leaves some hundred lines, not a million.
pub async fn note_opening(
    conn: &mut Connection,
    cart_id: &CartId,
    found: Opening,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with noted as (
            update recovery_links set opened_at = $3, openings = openings + 1
            where cart_id = $1
              and (opened_at is null
                   or opened_at <= $3::timestamptz - case when openings < 10 then interval '1 minute' else interval '1 hour' end)
            returning cart_id
        )
        insert into cart_events (cart_id, at, kind, why)
        select cart_id, $3, 'recovery_link_opened', $2 from noted
        on conflict do nothing
        "#,
        cart_id.as_str(),
        found.as_str(),
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Carts of before `cutoff` that did not expire, and why: said once a cart.
/// Call it when everything else has expired, so that there is little to look at.
pub async fn note_not_expired(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<()> {
    let mut conn = database.acquire().await?;
    // A cart that is being deleted is passed over: nothing is to come after its end.
    sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, why, details)
        select id, $2::timestamptz, 'not_expired',
               case when paying then 'payment_under_way' else 'recovery_link_good' end,
               case when not paying then jsonb_build_object('until', cart_event_time(good_until)) end
        from (
            select id, exists (select from payment_links where cart_id = carts.id and status = 'processing') as paying,
                   (select expires_at from recovery_links where cart_id = carts.id and expires_at > $2) as good_until
            from carts
            where status = 'abandoned' and abandoned_at < $1
              and (exists (select from recovery_links where cart_id = carts.id and expires_at > $2)
                   or exists (select from payment_links where cart_id = carts.id and status = 'processing'))
              and not exists (select from cart_events where cart_id = carts.id and kind = 'not_expired')
            order by abandoned_at
            for key share skip locked
        ) due
        on conflict do nothing
        "#,
        cutoff,
        now,
    )
    .execute(&mut conn)
    .await?;
    conn.commit().await
}

/// Money came for carts that were recovered before: each with its link.
pub(crate) async fn note_not_recovered(
    conn: &mut Connection,
    payments: &[(&str, i32)],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    if payments.is_empty() {
        return Ok(());
    }
    let (carts, links): (Vec<&str>, Vec<i32>) = payments.iter().copied().unzip();
    sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, link, why)
        select cart_id, $3, 'not_recovered', link, 'already_recovered'
        from unnest($1::text[], $2::integer[]) as payment (cart_id, link)
        on conflict do nothing
        "#,
        &carts as &[&str],
        &links,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        for (at, place) in [("2026-03-10T12:00:00.123456Z", 0), ("1969-12-31T23:00:00Z", 2_000_000_000_015)] {
            let cursor = Cursor { at: at.parse().unwrap(), place };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for malformed in ["", "-", "1", "1-", "-1", "x-1", "1-x", "99999999999999999-1", "9223372036854775807-1"] {
            assert_eq!(malformed.parse::<Cursor>(), Err(MalformedCursor), "{malformed}");
        }
    }
}
