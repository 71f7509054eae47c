//! Lists carts by filters, in any order.
//!
//! The statements are put together from the given filters, so that Postgres plans each with the indexes that
//! fit it (`docs/performance.md` has the figures). sqlx's macros can't check them at compile time; the tests run
//! every filter in every order.

mod query;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use strum::{EnumString, IntoStaticStr};

pub use self::query::Query;
use super::{
    CartStatus,
    search::{EmailToFind, text::TextToFind},
};
use crate::{
    db::{Connection, Database},
    money::{self, Currency},
};

/// Carts with all of these properties; those that are `None` do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The status now.
    pub status: Option<CartStatus>,
    /// The currency.
    pub currency: Option<Currency>,
    /// When the cart was stored.
    pub created: Period,
    /// When the shopper left the cart.
    pub abandoned: Period,
    /// When the cart was recovered.
    pub recovered: Period,
    /// The lowest total, as a number in units of the cart's currency.
    pub min_value: Option<ValueBound>,
    /// The highest total.
    pub max_value: Option<ValueBound>,
    /// The state of the payment link.
    pub link: Option<LinkFilter>,
    /// The shopper's address, in any spelling.
    pub email: Option<EmailToFind>,
    /// The shop's id of the cart.
    pub external_id: Option<String>,
    /// A part of the shopper's name or address or of the shop's id, or the whole id.
    pub text: Option<TextToFind>,
    /// Only these carts: those that [`Query::into_only_ids`] returned for the other filters.
    pub only_ids: Option<Vec<String>>,
}

impl Filter {
    /// Whether there is no filter but the status.
    pub fn is_status_only(&self) -> bool {
        *self == Self { status: self.status, ..Self::default() }
    }
}

/// A time from `from` on and before `to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Period {
    /// The earliest time; `None`: any.
    pub from: Option<DateTime<Utc>>,
    /// The end, which is not part of it; `None`: none.
    pub to: Option<DateTime<Utc>>,
}

/// A bound of totals, from 0 to the maximum of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash)]
pub struct ValueBound(Decimal);

/// The text is not a bound of totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0 to 999,999,999,999")]
pub struct NotABound;

impl FromStr for ValueBound {
    type Err = NotABound;

    fn from_str(text: &str) -> Result<Self, NotABound> {
        let range = Decimal::ZERO..=Decimal::from(Currency::MAX_MINOR);
        money::decimal(text).filter(|value| range.contains(value)).map(Self).ok_or(NotABound)
    }
}

impl std::fmt::Display for ValueBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of a cart's newest payment link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum LinkFilter {
    /// There is none, or it has ended: it expired, was closed or paid.
    None,
    /// A worker makes it.
    Pending,
    /// It can be paid.
    Ready,
    /// It could not be made, or its payment failed.
    Failed,
    /// Its payment is in progress.
    Processing,
}

/// The maximum number of matching carts that are read in any order and then sorted. Larger results are read in the
/// order of the list, in which they are met soon enough.
pub const FEW: i64 = 2_000;

/// Begins a transaction in which all statements of a query see the same carts.
pub async fn begin(database: &Database) -> sqlx::Result<Connection> {
    let mut tx = database.begin().await?;
    // Postgres expects each page of an index to come from a slow disk, and would rather read and join whole tables
    // than look up the first carts that match. Compiling a statement to machine code (jit) takes longer than it saves.
    let begin = "set transaction isolation level repeatable read, read only; set local random_page_cost = 1.1;
                 set local enable_mergejoin = off; set local max_parallel_workers_per_gather = 0; set local jit = off";
    sqlx::raw_sql(begin).execute(&mut tx).await?;
    Ok(tx)
}
