//! The timeline of a cart: what happened to it, when and why.
//!
//! Most of it is read from the rows of the cart and its payment links, which
//! tell their own latest events; `migrations/20261124001000_cart_events.sql`
//! says how what an update would erase gets into `cart_events`. `notes` writes
//! there what no row tells.

mod notes;
mod summary;

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize, de::IntoDeserializer};
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{carts::CartId, db::Connection};

pub use notes::{Opening, note_opening};
pub(crate) use notes::{note_not_expired, note_not_recovered};

/// What can happen to a cart. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Serialize, ToSchema)]
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
    #[schema(value_type = Object)]
    pub details: BTreeMap<String, Box<RawValue>>,
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
               told.details as "details?: Json<BTreeMap<String, Box<RawValue>>>", told.place as "place?"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        for (at, place) in [("2026-03-10T12:00:00.123456Z", 0), ("1969-12-31T23:00:00Z", 2_000_000_000_015)] {
            let cursor = Cursor { at: at.parse().unwrap(), place };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for malformed in ["", "-", "1", "1-", "-1", "x-1", "1-x", "999999999999999999-1", "9223372036854775807-1"] {
            assert_eq!(malformed.parse::<Cursor>(), Err(MalformedCursor), "{malformed}");
        }
    }
}
