//! The list of carts: newest first, by page or by cursor, with an exact total. Lists with filters or in another
//! order are in [`super::filter`].

use std::str::FromStr;

use chrono::{DateTime, Datelike, Utc};
use strum::{EnumString, IntoStaticStr};

use super::cart::select_carts;
use crate::carts::{Cart, CartStatus};
use crate::db::Connection;

/// What a list is sorted by. Carts with the same value are sorted by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum SortKey {
    /// When the cart was stored.
    CreatedAt,
    /// When the shopper left the cart.
    AbandonedAt,
    /// When the cart was recovered; carts that were not count as before all others.
    RecoveredAt,
    /// The total as a number, whatever its currency.
    TotalValue,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sort {
    /// What the list is sorted by.
    pub key: SortKey,
    /// Whether the highest value is first.
    pub descending: bool,
}

impl Default for Sort {
    /// Newest first.
    fn default() -> Self {
        Self { key: SortKey::CreatedAt, descending: true }
    }
}

impl FromStr for Sort {
    type Err = strum::ParseError;

    /// The name of a key, with `-` before it for descending.
    fn from_str(text: &str) -> Result<Self, strum::ParseError> {
        let (key, descending) = text.strip_prefix('-').map_or((text, false), |key| (key, true));
        Ok(Self { key: key.parse()?, descending })
    }
}

impl std::fmt::Display for Sort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key: &str = self.key.into();
        write!(f, "{}{key}", if self.descending { "-" } else { "" })
    }
}

/// The value of a cart by which a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SortValue {
    Created(DateTime<Utc>),
    Abandoned(DateTime<Utc>),
    /// `None`: not recovered.
    Recovered(Option<DateTime<Utc>>),
    /// In thousandths, as `cart_value()` returns it.
    Value(i64),
}

/// The position of a cart in a list; the next page starts after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    value: SortValue,
    id: String,
}

/// The text is not a cursor of a list of carts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct MalformedCursor;

impl Cursor {
    pub(crate) fn after(cart: &Cart, key: SortKey) -> Self {
        let value = match key {
            SortKey::CreatedAt => SortValue::Created(cart.created_at),
            SortKey::AbandonedAt => SortValue::Abandoned(cart.abandoned_at),
            SortKey::RecoveredAt => SortValue::Recovered(cart.recovered_at),
            SortKey::TotalValue => SortValue::Value(value_of(cart)),
        };
        Self { value, id: cart.id.clone() }
    }

    /// What the list of this cursor is sorted by.
    pub fn key(&self) -> SortKey {
        match self.value {
            SortValue::Created(_) => SortKey::CreatedAt,
            SortValue::Abandoned(_) => SortKey::AbandonedAt,
            SortValue::Recovered(_) => SortKey::RecoveredAt,
            SortValue::Value(_) => SortKey::TotalValue,
        }
    }

    pub(crate) fn into_parts(self) -> (SortValue, String) {
        (self.value, self.id)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            SortValue::Created(at) => write!(f, "{}", at.timestamp_micros())?,
            SortValue::Abandoned(at) => write!(f, "a{}", at.timestamp_micros())?,
            SortValue::Recovered(Some(at)) => write!(f, "r{}", at.timestamp_micros())?,
            SortValue::Recovered(None) => write!(f, "n")?,
            SortValue::Value(value) => write!(f, "v{value}")?,
        }
        write!(f, "-{}", self.id)
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let (kind, rest) = match text.chars().next() {
            Some(kind @ ('a' | 'n' | 'r' | 'v')) => (kind, &text[1..]),
            _ => ('c', text),
        };
        // A value may be negative, and so begin with the separator: a time before 1970.
        let skipped = if kind == 'n' { 0 } else { 1 };
        let at = rest.char_indices().skip(skipped).find(|(_, c)| *c == '-').ok_or(MalformedCursor)?.0;
        let (value, id) = (&rest[..at], &rest[at + 1..]);
        // chrono accepts years that Postgres does not.
        let time = || {
            let time = value.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or(MalformedCursor)?;
            (1..=9999).contains(&time.year()).then_some(time).ok_or(MalformedCursor)
        };
        if id.is_empty() || id.len() > 200 || id.contains('\0') {
            return Err(MalformedCursor);
        }
        let value = match kind {
            'a' => SortValue::Abandoned(time()?),
            'n' if value.is_empty() => SortValue::Recovered(None),
            'n' => return Err(MalformedCursor),
            'r' => SortValue::Recovered(Some(time()?)),
            'v' => SortValue::Value(value.parse().map_err(|_| MalformedCursor)?),
            _ => SortValue::Created(time()?),
        };
        Ok(Self { value, id: id.to_owned() })
    }
}

/// The total in thousandths; must equal `cart_value()` (`migrations/20261129000008_cart_search.sql`).
pub fn value_of(cart: &Cart) -> i64 {
    cart.total_value.minor().min(i64::MAX / 1_000) * 10_i64.pow(3 - cart.currency.decimals())
}

/// Where a page starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Start {
    /// Skips this number of carts.
    Offset(i64),
    /// Starts after this cart, at the same cost on every page.
    After(Cursor),
}

/// One page of the list.
#[derive(Debug)]
pub struct CartPage {
    /// In the order of the list.
    pub carts: Vec<Cart>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// A page of at most `limit` carts, with the payment links that work at `now`.
pub async fn page(
    conn: &mut Connection,
    status: Option<CartStatus>,
    start: Start,
    limit: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<CartPage> {
    let (offset, after) = match start {
        Start::Offset(offset) => (offset, None),
        Start::After(cursor) => (0, Some(cursor)),
    };
    let (after_created_at, after_id) = match after.map(Cursor::into_parts) {
        Some((SortValue::Created(at), id)) => (Some(at), Some(id)),
        _ => (None, None),
    };
    // Reads one cart more than requested, which shows whether there is a next page.
    let mut carts = rows(conn, status, &Part { after_created_at, after_id, offset, limit: limit + 1, now }).await?;
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = carts.len() > asked_for;
    carts.truncate(asked_for);
    let next = if more { carts.last().map(|cart| Cursor::after(cart, SortKey::CreatedAt)) } else { None };
    Ok(CartPage { carts, next })
}

/// The parameters of the list query.
struct Part {
    after_created_at: Option<DateTime<Utc>>,
    after_id: Option<String>,
    offset: i64,
    limit: i64,
    now: DateTime<Utc>,
}

/// Expands to one statement for each status, because each status has its own index. Positions are
/// found in the index alone, and only the carts of the page are read.
macro_rules! part_of_the_list {
    ($conn:expr, $part:expr, $ids:tt) => {
        select_carts!(
            $conn,
            [r#"
            (
                select id from ("#
                + $ids
                + r#") ids
                where (created_at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::text, ''))
                order by created_at desc, id desc
                offset $4 limit $5
            ) page
            join carts on carts.id = page.id
            "#],
            "order by carts.created_at desc, carts.id desc",
            $part.now,
            $part.after_created_at,
            $part.after_id,
            $part.offset,
            $part.limit,
        )
    };
}

async fn rows(conn: &mut Connection, status: Option<CartStatus>, part: &Part) -> sqlx::Result<Vec<Cart>> {
    match status {
        // The newest of each status, merged.
        None => part_of_the_list!(
            conn,
            part,
            // Each in its order, so that they are merged; otherwise all of them are sorted.
            "(select created_at, id from carts where status = 'abandoned' order by created_at desc, id desc)
             union all
             (select created_at, id from carts where status = 'recovered' order by created_at desc, id desc)
             union all
             (select created_at, id from carts where status = 'expired' order by created_at desc, id desc)"
        ),
        Some(CartStatus::Abandoned) => {
            part_of_the_list!(conn, part, "select created_at, id from carts where status = 'abandoned'")
        }
        Some(CartStatus::Recovered) => {
            part_of_the_list!(conn, part, "select created_at, id from carts where status = 'recovered'")
        }
        Some(CartStatus::Expired) => {
            part_of_the_list!(conn, part, "select created_at, id from carts where status = 'expired'")
        }
    }
}

/// The number of carts by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    abandoned: i64,
    recovered: i64,
    expired: i64,
    /// The number of deltas that were read; see [`crate::analytics::add_up`].
    pub deltas: i64,
}

impl Totals {
    /// The number of carts with the status; `None`: of all carts.
    pub fn of(&self, status: Option<CartStatus>) -> i64 {
        match status {
            Some(CartStatus::Abandoned) => self.abandoned,
            Some(CartStatus::Recovered) => self.recovered,
            Some(CartStatus::Expired) => self.expired,
            None => self.abandoned + self.recovered + self.expired,
        }
    }
}

/// The exact number of carts, from the stored counts (`migrations/20261129000003_cart_counts.sql`).
/// `conn` must be of [`crate::db::Pools::lookups`], or the deltas may be read by a scan: the function
/// that other connections need (`cart_count_deltas_to_add`) doubles the time of this statement.
pub async fn totals(conn: &mut Connection) -> sqlx::Result<Totals> {
    sqlx::query_as!(
        Totals,
        r#"
        select coalesce(sum(abandoned), 0)::bigint as "abandoned!", coalesce(sum(recovered), 0)::bigint as "recovered!",
               coalesce(sum(expired), 0)::bigint as "expired!", coalesce(sum(deltas), 0)::bigint as "deltas!"
        from (
            select abandoned, recovered, expired, 0 as deltas from cart_totals
            union all
            select now_abandoned, now_recovered, now_expired, 1 from cart_count_deltas
            where xid >= (select cart_count_horizon(progress, progress.xmin) from cart_count_progress progress)
        ) counts
        "#
    )
    .fetch_one(conn)
    .await
}

#[cfg(test)]
mod properties;
