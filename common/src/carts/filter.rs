//! Lists carts by filters, in any order.
//!
//! The statements are put together from the given filters, so that Postgres plans each with the indexes that
//! fit it (`docs/performance.md` has the figures). sqlx's macros can't check them at compile time; the tests run
//! every filter in every order.

use std::{collections::HashMap, str::FromStr};

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::{Postgres, QueryBuilder};
use strum::{EnumString, IntoStaticStr};

use super::{
    Cart, CartStatus,
    list::{CartPage, Cursor, Sort, SortKey, SortValue, Start},
    search::{
        EmailToFind, find_external, ids_by_email,
        index::{MAX_UNINDEXED, unindexed, with_text},
        still_of,
        text::{TextToFind, currency_gram},
    },
};
use crate::{
    carts,
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
pub const FEW: i64 = 3_000;

/// Begins a transaction in which all statements of a query see the same carts.
pub async fn begin(database: &Database) -> sqlx::Result<Connection> {
    let mut tx = database.begin().await?;
    // Postgres expects each page of an index to come from a slow disk, and would rather read and join whole tables
    // than look up the first carts that match.
    let begin = "set transaction isolation level repeatable read, read only; set local random_page_cost = 1.1;
                 set local enable_mergejoin = off; set local max_parallel_workers_per_gather = 0";
    sqlx::raw_sql(begin).execute(&mut tx).await?;
    Ok(tx)
}

/// A filter with what was read for it, ready to be run in the same transaction, of a database that may scan tables.
#[derive(Debug)]
pub struct Query<'a> {
    filter: &'a Filter,
    sort: Sort,
    /// The only carts that can match; `None`: all.
    only_ids: Option<Vec<String>>,
    /// Whether all of `only_ids` are known to match.
    is_checked: bool,
    /// The carts that are not in `cart_search`, or as they were.
    unindexed: Vec<String>,
    /// Those of them that have the text.
    with_text: Vec<String>,
    /// The cart whose whole id is the text.
    named: Option<String>,
    now: DateTime<Utc>,
}

type Sql = QueryBuilder<Postgres>;

impl Filter {
    /// Reads what the filter needs in a list with this order. Must run in a transaction of [`begin`].
    pub async fn read(&self, conn: &mut Connection, sort: Sort, now: DateTime<Utc>) -> sqlx::Result<Query<'_>> {
        let mut query = Query {
            filter: self,
            sort,
            only_ids: None,
            is_checked: false,
            unindexed: Vec::new(),
            with_text: Vec::new(),
            named: None,
            now,
        };
        if self.only_ids.is_some() {
            query.only_ids.clone_from(&self.only_ids);
        } else if let Some(external_id) = &self.external_id {
            let mut ids: Vec<String> = find_external(&mut *conn, external_id).await?.into_iter().collect();
            if let Some(email) = &self.email {
                ids = still_of(&mut *conn, &ids, email).await?;
            }
            query.only_ids = Some(ids);
        } else if let Some(email) = &self.email {
            query.only_ids = Some(ids_by_email(&mut *conn, email).await?.0);
        }
        let needs_index = query.only_ids.is_none() && (!self.is_status_only() || sort.key != SortKey::CreatedAt);
        if needs_index || self.text.is_some() {
            query.unindexed = unindexed(&mut *conn).await?;
        }
        if let Some(text) = &self.text
            && !query.is_behind()
        {
            query.with_text = with_text(&mut *conn, &query.unindexed, text).await?;
            let named = sqlx::query_scalar!("select id from carts where id = $1", text.as_str());
            query.named = named.fetch_optional(conn).await?;
        }
        Ok(query)
    }
}

impl Query<'_> {
    /// The number of carts that are read one by one; see [`carts::search::index::index_changes`].
    pub fn unindexed(&self) -> usize {
        self.unindexed.len()
    }

    /// Whether so many carts are not indexed that reading them one by one would take too long. Then the query must not
    /// be run.
    pub fn is_behind(&self) -> bool {
        i64::try_from(self.unindexed.len()).is_ok_and(|carts| carts > MAX_UNINDEXED)
    }

    /// The carts that [`Query::count_few`] found, if they were few, or those of an address or an external id.
    pub fn into_only_ids(self) -> Option<Vec<String>> {
        self.only_ids
    }

    /// The number of carts that match; `None` if there are more than [`FEW`]. After `Some`, [`Query::page`] reads only
    /// the counted carts.
    ///
    /// Postgres can't tell how far it has to walk in the order of a list until it has met enough carts. It finds few in
    /// no order, with the best index.
    pub async fn count_few(&mut self, conn: &mut Connection) -> sqlx::Result<Option<i64>> {
        let mut sql = Sql::new("");
        self.matching(&mut sql, Some(FEW + 1));
        let ids: Vec<String> = sql.build_query_scalar().persistent(false).fetch_all(conn).await?;
        let count = i64::try_from(ids.len()).ok().filter(|count| *count <= FEW);
        if count.is_some() {
            self.only_ids = Some(ids);
            self.is_checked = true;
        }
        Ok(count)
    }

    /// The number of carts that match. Must be the last statement of the transaction: it changes how others are planned.
    pub async fn count(&self, conn: &mut Connection) -> sqlx::Result<i64> {
        // Many are counted faster by reading and joining whole tables.
        let whole = "set local random_page_cost to default; set local enable_mergejoin to default;
                     set local max_parallel_workers_per_gather to default";
        sqlx::raw_sql(whole).execute(&mut *conn).await?;
        let mut sql = Sql::new("select count(*) from (");
        self.matching(&mut sql, None);
        sql.push(") carts");
        sql.build_query_scalar().persistent(false).fetch_one(conn).await
    }

    /// A page of at most `limit` carts, with the payment links that work now.
    pub async fn page(&self, conn: &mut Connection, start: Start, limit: i64) -> sqlx::Result<CartPage> {
        let mut sql = self.ids(start, limit + 1);
        let mut ids: Vec<String> = sql.build_query_scalar().persistent(false).fetch_all(&mut *conn).await?;
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = ids.len() > asked_for;
        ids.truncate(asked_for);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = carts::find_many(conn, &ids, self.now).await?;
        let mut found: HashMap<String, Cart> = found.into_iter().map(|cart| (cart.id.clone(), cart)).collect();
        let carts: Vec<Cart> = ids.iter().filter_map(|id| found.remove(*id)).collect();
        let next = carts.last().filter(|_| more).map(|cart| Cursor::after(cart, self.sort.key));
        Ok(CartPage { carts, next })
    }

    /// The ids of all carts that match, or of at most `limit` from each source, in any order.
    fn matching(&self, sql: &mut Sql, limit: Option<i64>) {
        let sources = match self.only_ids.is_some() || self.filter.is_status_only() {
            true => vec![Source::Carts(None)],
            false => self.sources(),
        };
        for (place, source) in sources.into_iter().enumerate() {
            sql.push(if place == 0 { "(" } else { " union all (" });
            sql.push(format!("select {} from {} where true", source.id(), self.tables(source, Reading::AnyOrder)));
            self.conditions(sql, source, Reading::AnyOrder);
            // In each part: Postgres plans a part for all its rows otherwise.
            if let Some(limit) = limit {
                sql.push(" limit ").push_bind(limit);
            }
            sql.push(")");
        }
    }

    /// All carts: those in `cart_search`, and the others, if there are any.
    fn sources(&self) -> Vec<Source> {
        match self.unindexed.is_empty() {
            true => vec![Source::Indexed],
            false => vec![Source::Indexed, Source::Unindexed],
        }
    }

    /// The tables that have the values of a source.
    fn tables(&self, source: Source, reading: Reading) -> String {
        if !matches!(source, Source::Indexed) {
            return "carts".to_owned();
        }
        let (filter, from_links) = (self.filter, self.is_from_links(source, reading));
        let mut tables = "cart_search indexed".to_owned();
        if from_links {
            tables.push_str(" join payment_links link on link.cart_id = indexed.cart_id");
        }
        if filter.recovered != Period::default() || self.status().is_some() || (filter.link.is_some() && !from_links) {
            tables.push_str(" join carts on carts.id = indexed.cart_id");
        }
        tables
    }

    /// Whether the links in the state are joined, at most one of each cart: its newest.
    fn is_from_links(&self, source: Source, reading: Reading) -> bool {
        let is_state = self.filter.link.is_some_and(|link| link != LinkFilter::None);
        is_state && matches!(source, Source::Indexed) && reading == Reading::AnyOrder
    }

    /// The ids of a page.
    fn ids(&self, start: Start, limit: i64) -> Sql {
        let (offset, after) = match start {
            Start::Offset(offset) => (offset, None),
            Start::After(cursor) => (0, Some(cursor.into_parts())),
        };
        let order = if self.sort.descending { "desc" } else { "asc" };
        let mut sql = Sql::new("select id from (");
        for (place, (source, key)) in self.parts().iter().enumerate() {
            let id = source.id();
            sql.push(if place == 0 { "(" } else { " union all (" });
            sql.push(format!(
                "select {id} as id, {key} as key from {} where true",
                self.tables(*source, Reading::InOrder)
            ));
            self.conditions(&mut sql, *source, Reading::InOrder);
            if let Some((value, after)) = &after {
                sql.push(format!(" and ({key}, {id}) {} (", if self.sort.descending { "<" } else { ">" }));
                match *value {
                    SortValue::Created(at) | SortValue::Abandoned(at) | SortValue::Recovered(Some(at)) => {
                        sql.push_bind(at)
                    }
                    SortValue::Recovered(None) => sql.push("'-infinity'::timestamptz"),
                    SortValue::Value(value) => sql.push_bind(value),
                };
                sql.push(", ").push_bind(after.clone()).push(")");
            }
            sql.push(format!(" order by {key} {order}, {id} {order} limit "));
            sql.push_bind(offset.saturating_add(limit)).push(")");
        }
        sql.push(format!(") carts order by key {order}, id {order} offset "));
        sql.push_bind(offset).push(" limit ").push_bind(limit);
        sql
    }

    /// The list in parts, each with the value by which it is sorted. An index has each in its order, so that Postgres
    /// merges them instead of sorting all.
    fn parts(&self) -> Vec<(Source, &'static str)> {
        let (of_index, of_carts) = match self.sort.key {
            SortKey::CreatedAt => ("indexed.created_at", "carts.created_at"),
            SortKey::AbandonedAt => ("indexed.abandoned_at", "carts.abandoned_at"),
            SortKey::TotalValue => ("indexed.value", VALUE),
            SortKey::RecoveredAt if self.filter.status == Some(CartStatus::Recovered) => {
                return vec![(Source::Carts(None), "carts.recovered_at")];
            }
            SortKey::RecoveredAt => return vec![(Source::Carts(None), "coalesce(carts.recovered_at, '-infinity')")],
        };
        let of_status = |status| (Source::Carts(Some(status)), of_carts);
        match (self.sort.key, self.status()) {
            _ if self.only_ids.is_some() => vec![(Source::Carts(None), of_carts)],
            // Carts of one status may all be at one end of the index of all.
            (SortKey::CreatedAt, Some(status)) | (SortKey::AbandonedAt, Some(status @ CartStatus::Abandoned)) => {
                vec![of_status(status)]
            }
            (SortKey::CreatedAt, None) if self.filter.is_status_only() => {
                [CartStatus::Abandoned, CartStatus::Recovered, CartStatus::Expired].map(of_status).into()
            }
            _ => {
                let key = |source| if matches!(source, Source::Indexed) { of_index } else { of_carts };
                self.sources().into_iter().map(|source| (source, key(source))).collect()
            }
        }
    }

    /// The only status with which a cart can match.
    fn status(&self) -> Option<CartStatus> {
        let of_link = (self.filter.link == Some(LinkFilter::Ready)).then_some(CartStatus::Abandoned);
        self.filter.status.or(of_link)
    }

    fn conditions(&self, sql: &mut Sql, source: Source, reading: Reading) {
        let filter = self.filter;
        match source {
            Source::Carts(Some(status)) => drop(sql.push(format!(" and carts.status = '{}'", status.as_str()))),
            Source::Carts(None) => {}
            Source::Indexed if self.unindexed.is_empty() => {}
            Source::Indexed => drop(
                sql.push(" and indexed.cart_id not in (select unnest(")
                    .push_bind(self.unindexed.clone())
                    .push("::text[]))"),
            ),
            Source::Unindexed => drop(sql.push(" and carts.id = any (").push_bind(self.unindexed.clone()).push(")")),
        }
        if let Some(ids) = &self.only_ids {
            sql.push(" and carts.id = any (").push_bind(ids.clone()).push(")");
        }
        if self.is_checked {
            return;
        }
        if let Some(status) = filter.status {
            // Not a parameter, because the indexes are partial.
            sql.push(format!(" and carts.status = '{}'", status.as_str()));
        }
        let table = source.table();
        if let Some(currency) = filter.currency {
            sql.push(format!(" and {table}.currency = ")).push_bind(currency.code().to_owned());
            if matches!(source, Source::Indexed) && reading == Reading::AnyOrder {
                sql.push(" and indexed.grams @> ").push_bind(vec![currency_gram(currency.code())]);
            }
        }
        for (column, period) in [
            (format!("{table}.created_at"), filter.created),
            (format!("{table}.abandoned_at"), filter.abandoned),
            ("carts.recovered_at".to_owned(), filter.recovered),
        ] {
            if let Some(from) = period.from {
                sql.push(format!(" and {column} >= ")).push_bind(from);
            }
            if let Some(to) = period.to {
                sql.push(format!(" and {column} < ")).push_bind(to);
            }
        }
        self.value(sql, source);
        if let Some(external_id) = &filter.external_id {
            sql.push(" and carts.external_id = ").push_bind(external_id.clone());
        }
        if let Some(link) = filter.link {
            match self.is_from_links(source, reading) {
                true => self.link(sql, link),
                false => self.link_of_each(sql, link),
            }
        }
        if let Some(text) = &filter.text {
            self.text(sql, text, source, reading);
        }
    }

    /// The total lies between the lowest and the highest.
    fn value(&self, sql: &mut Sql, source: Source) {
        let value = if matches!(source, Source::Indexed) { "indexed.value" } else { VALUE };
        if let Some(ValueBound(bound)) = self.filter.min_value {
            let thousandths = (bound * Decimal::ONE_THOUSAND).ceil().to_i64().unwrap_or(i64::MAX);
            sql.push(format!(" and {value} >= ")).push_bind(thousandths);
        }
        if let Some(ValueBound(bound)) = self.filter.max_value {
            let thousandths = (bound * Decimal::ONE_THOUSAND).floor().to_i64().unwrap_or(i64::MAX);
            sql.push(format!(" and {value} <= ")).push_bind(thousandths);
        }
    }

    /// The newest link of the cart is in this state.
    fn link(&self, sql: &mut Sql, link: LinkFilter) {
        let state = match link {
            LinkFilter::None => "false".to_owned(),
            LinkFilter::Pending => format!("link.status = 'pending' and {HAS_JOB}"),
            LinkFilter::Processing => "link.status = 'processing'".to_owned(),
            // Sessions of carts that were just recovered or expired are to be closed.
            LinkFilter::Ready => "link.status = 'open' and carts.status = 'abandoned'".to_owned(),
            LinkFilter::Failed => format!(
                "(link.status in ('failed', 'payment_failed', 'settling') or (link.status = 'pending' and not {HAS_JOB}))"
            ),
        };
        sql.push(format!(" and {state}"));
        sql.push(
            " and not exists (
                select from payment_links later where later.cart_id = link.cart_id and later.version > link.version)",
        );
        if link == LinkFilter::Ready {
            sql.push(" and link.session_expires_at > ").push_bind(self.now);
        }
    }

    /// The same, cart by cart.
    fn link_of_each(&self, sql: &mut Sql, link: LinkFilter) {
        let state: &'static str = link.into();
        sql.push(format!(
            " and case coalesce((
                  select case when link.status in ('failed', 'payment_failed', 'settling') then 'failed'
                              when link.status = 'pending' then case when {HAS_JOB} then 'pending' else 'failed' end
                              when link.status = 'processing' then 'processing'
                              when link.status = 'open' and carts.status = 'abandoned' and session_expires_at > "
        ));
        sql.push_bind(self.now);
        sql.push(
            " then 'ready' end
                  from payment_links link where cart_id = carts.id order by version desc limit 1), 'none') when ",
        );
        // Not a comparison, which Postgres takes for rarely true, so that it would rather read and sort all.
        sql.push_bind(state).push(" then true else false end");
    }

    /// The cart has the text, or it is its id.
    fn text(&self, sql: &mut Sql, text: &TextToFind, source: Source, reading: Reading) {
        sql.push(" and (");
        match source {
            Source::Indexed => {
                if reading == Reading::AnyOrder {
                    sql.push("indexed.grams @> ").push_bind(text.grams()).push(" and ");
                }
                sql.push("strpos(indexed.text, ").push_bind(text.folded().to_owned()).push(") > 0");
            }
            Source::Unindexed => drop(sql.push("carts.id = any (").push_bind(self.with_text.clone()).push(")")),
            Source::Carts(_) => {
                sql.push("case when carts.id = any (").push_bind(self.unindexed.clone());
                sql.push(") then carts.id = any (").push_bind(self.with_text.clone());
                sql.push(") else (select strpos(text, ").push_bind(text.folded().to_owned());
                sql.push(") > 0 from cart_search where cart_id = carts.id) end");
            }
        }
        if let Some(id) = &self.named {
            sql.push(format!(" or {} = ", source.id())).push_bind(id.clone());
        }
        sql.push(")");
    }
}

/// How carts are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// All, or any few, with the best index.
    AnyOrder,
    /// The first ones in the order of the list.
    InOrder,
}

/// Where carts are read.
#[derive(Clone, Copy)]
enum Source {
    /// `carts`, perhaps those with a status.
    Carts(Option<CartStatus>),
    /// Those in `cart_search`.
    Indexed,
    /// The others.
    Unindexed,
}

/// The job that makes a pending link is not finished. A link without one was not made: the job ran out of attempts, or
/// was cancelled.
const HAS_JOB: &str = "exists (select from jobs where jobs.id = link.job_id and jobs.state in ('pending', 'running'))";

/// The total of a cart, as `cart_search` has it.
const VALUE: &str = "cart_value(carts.total_minor, carts.currency)";

impl Source {
    /// The table with the dates, the currency and the total by which carts are found.
    fn table(self) -> &'static str {
        if matches!(self, Self::Indexed) { "indexed" } else { "carts" }
    }

    fn id(self) -> &'static str {
        if matches!(self, Self::Indexed) { "indexed.cart_id" } else { "carts.id" }
    }
}
