//! The timeline of a cart: its events with time and reason.
//!
//! Most events are derived from the rows of the cart and its payment links. A trigger copies events
//! to `cart_events` before an update would erase them
//! (`migrations/20261129000005_cart_events.sql`); `notes` adds events that are stored nowhere else.

mod notes;
mod summary;

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize, de::IntoDeserializer};
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{carts::CartId, db::Connection};

pub(crate) use notes::{Note, note_changed, note_not_expired, note_not_recovered, note_reversal};
pub use notes::{Opening, note_opening};

/// The kinds of events. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The cart was stored; `why` is the source: `api` or `import`.
    Created,
    /// The shop changed the cart's contents; `fields` names what changed.
    Changed,
    /// The shopper followed the recovery link; `why` is the result, see [`Opening`].
    RecoveryLinkOpened,
    /// A payment link was requested; `why` is `api`, `shopper` or `replacement`.
    LinkRequested,
    /// Stripe created the session.
    LinkMade,
    /// The link could not be created; `why` is Stripe's code or one of this program.
    LinkNotMade,
    /// The shopper completed the checkout, and the payment is in progress.
    PaymentProcessing,
    /// The payment failed.
    PaymentFailed,
    /// The payment succeeded.
    PaymentReceived,
    /// A payment arrived but did not recover the cart; `why` is the reason.
    NotRecovered,
    /// The cart was due to expire but did not; `why` is the reason.
    NotExpired,
    /// The cart expired; `why` is `age`, `operator`, `import`, or `sql` (changed in the database).
    Expired,
    /// The cart was recovered; `why` is `payment`, `operator`, `import` or `sql`.
    Recovered,
    /// The cart was reopened, and is abandoned again; `why` is `api` (the shop sent it again),
    /// `operator` or `sql`.
    Reopened,
    /// The request for a link was withdrawn before the link was created.
    LinkWithdrawn,
    /// The session was closed and can't be paid any more.
    SessionClosed,
    /// Money was refunded; `amount` is that of this refund.
    Refunded,
    /// A refund failed or was cancelled.
    RefundFailed,
    /// The shopper's bank opened a dispute or an inquiry about the payment.
    DisputeOpened,
    /// The dispute was won or withdrawn, or the inquiry closed.
    DisputeWon,
    /// The dispute was lost.
    DisputeLost,
}

/// An event in the timeline of a cart.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({"at": "2026-03-01T12:00:01Z", "kind": "link_requested", "link": 1, "why": "api",
    "summary": "Payment link 1 requested", "details": {}}))]
pub struct Event {
    /// When the event happened.
    pub at: DateTime<Utc>,
    /// The kind of the event.
    pub kind: EventKind,
    /// The number of the cart's payment link, counted from 1; null if the event is not about a
    /// link.
    #[schema(required)]
    pub link: Option<i32>,
    /// A machine-readable reason or source; null if it is unknown.
    #[schema(required)]
    pub why: Option<String>,
    /// The event in English.
    pub summary: String,
    /// Further data: `key` (the name of the API key), `attempts`, `fields`, `recoveredAt`,
    /// `expiredAt`, `until`, `amount`, `currency`, `dispute`.
    #[schema(value_type = Object)]
    pub details: BTreeMap<String, Box<RawValue>>,
    #[serde(skip)]
    place: i64,
}

/// The position of an event in a timeline; the next page starts after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: DateTime<Utc>,
    place: i64,
}

/// The text is not a cursor of a timeline.
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
        // chrono accepts years that Postgres does not.
        if !(1..=9999).contains(&at.year()) {
            return Err(MalformedCursor);
        }
        Ok(Self { at, place: place.parse().map_err(|_| MalformedCursor)? })
    }
}

/// One page of a timeline.
#[derive(Debug)]
pub struct TimelinePage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// At most `limit` events of the cart, oldest first; `None` if there is no such cart.
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
            -- A row that returned to an earlier state yields the same event twice: keep one.
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
        limit + 1, // one more shows whether there is a next page
    )
    .fetch_all(conn)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        // A cart without further events gives one row of nulls.
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
