//! The statements of a list with filters.

mod conditions;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use self::conditions::{HAS_JOB, Reading, Source, VALUE};
use super::{FEW, Filter, LinkFilter, Period};
use crate::{
    carts::{
        self, Cart, CartStatus,
        list::{CartPage, Cursor, Sort, SortKey, SortValue, Start},
        search::{
            find_external, ids_by_email,
            index::{MAX_UNINDEXED, TextLookup, look_up, unindexed, with_text},
            still_of,
        },
    },
    db::Connection,
};

/// A filter with what was read for it, ready to be run in the same transaction, of a database that may scan tables.
#[derive(Debug)]
pub struct Query<'a> {
    filter: &'a Filter,
    sort: Sort,
    /// The only carts that can match; `None`: all.
    only_ids: Option<Vec<String>>,
    /// Whether all of `only_ids` are known to match. Then they are in the order of the list.
    is_checked: bool,
    /// The number of carts that are not in `cart_search`, or as they were.
    unindexed: usize,
    /// These carts, and those of which `cart_search` can't know whether they match.
    one_by_one: Vec<String>,
    /// Those of them that have the text.
    with_text: Vec<String>,
    text_lookup: TextLookup,
    /// The cart whose whole id is the text.
    named: Option<String>,
    /// The first or last date of the carts with the status; see [`date_of`].
    date_of_status: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

type Sql = QueryBuilder<Postgres>;

impl Filter {
    /// Reads what the filter needs in a list with this order. Must run in a transaction of [`super::begin`].
    pub async fn read(&self, conn: &mut Connection, sort: Sort, now: DateTime<Utc>) -> sqlx::Result<Query<'_>> {
        let mut query = Query {
            filter: self,
            sort,
            only_ids: None,
            is_checked: false,
            unindexed: 0,
            one_by_one: Vec::new(),
            with_text: Vec::new(),
            text_lookup: TextLookup::default(),
            named: None,
            date_of_status: None,
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
            query.one_by_one = unindexed(&mut *conn).await?;
            query.unindexed = query.one_by_one.len();
        }
        if query.is_behind() {
            return Ok(query);
        }
        if needs_index {
            if self.link == Some(LinkFilter::Failed) {
                query.one_by_one.extend(pending_without_job(&mut *conn).await?);
            }
            query.date_of_status = date_of(&mut *conn, query.status()).await?;
        }
        if let Some(text) = &self.text {
            query.with_text = with_text(&mut *conn, &query.one_by_one, text).await?;
            if query.only_ids.is_none() {
                query.text_lookup = look_up(&mut *conn, text).await?;
            }
            let named = sqlx::query_scalar!("select id from carts where id = $1", text.as_str());
            query.named = named.fetch_optional(conn).await?;
        }
        Ok(query)
    }
}

impl Query<'_> {
    /// The number of carts that are not indexed; see [`carts::search::index::index_changes`].
    pub fn unindexed(&self) -> usize {
        self.unindexed
    }

    /// Whether so many carts are not indexed that reading them one by one would take too long. Then the query must not
    /// be run.
    pub fn is_behind(&self) -> bool {
        i64::try_from(self.unindexed).is_ok_and(|carts| carts > MAX_UNINDEXED)
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
        let mut sql = Sql::new("select id from (");
        self.matching(&mut sql, Some(FEW + 1));
        sql.push(format!(") carts order by {}", self.order()));
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
                     set local max_parallel_workers_per_gather to default; set local enable_sort to default";
        sqlx::raw_sql(whole).execute(&mut *conn).await?;
        let mut sql = Sql::new("select count(*) from (");
        self.matching(&mut sql, None);
        sql.push(") carts");
        sql.build_query_scalar().persistent(false).fetch_one(conn).await
    }

    /// A page of at most `limit` carts, with the payment links that work now.
    pub async fn page(&self, conn: &mut Connection, start: Start, limit: i64) -> sqlx::Result<CartPage> {
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut ids: Vec<String> = match (&self.only_ids, &start) {
            (Some(ids), Start::Offset(offset)) if self.is_checked => {
                let before = usize::try_from(*offset).unwrap_or(usize::MAX);
                ids.iter().skip(before).take(asked_for.saturating_add(1)).cloned().collect()
            }
            _ => {
                if self.sort.key == SortKey::TotalValue && self.only_ids.is_none() {
                    // Postgres takes what is looked up of few carts for looked up of all that the walk leaves out, and
                    // would rather sort.
                    sqlx::raw_sql("set local enable_sort = off").execute(&mut *conn).await?;
                }
                self.ids(start, limit + 1).build_query_scalar().persistent(false).fetch_all(&mut *conn).await?
            }
        };
        let more = ids.len() > asked_for;
        ids.truncate(asked_for);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = carts::find_many(conn, &ids, self.now).await?;
        let mut found: HashMap<String, Cart> = found.into_iter().map(|cart| (cart.id.clone(), cart)).collect();
        let carts: Vec<Cart> = ids.iter().filter_map(|id| found.remove(*id)).collect();
        let next = carts.last().filter(|_| more).map(|cart| Cursor::after(cart, self.sort.key));
        Ok(CartPage { carts, next })
    }

    /// The ids of all carts that match, or of at most `limit` from each source with the values by which they are sorted,
    /// in any order.
    fn matching(&self, sql: &mut Sql, limit: Option<i64>) {
        let sources = match self.only_ids.is_some() || !self.needs_search_table() {
            true => vec![Source::Carts(None)],
            false => self.sources(),
        };
        for (place, source) in sources.into_iter().enumerate() {
            sql.push(if place == 0 { "(" } else { " union all (" });
            self.select(sql, source, if limit.is_some() { Reading::AnyOrder } else { Reading::All });
            // In each part: Postgres plans a part for all its rows otherwise.
            if let Some(limit) = limit {
                sql.push(" limit ").push_bind(limit);
            }
            sql.push(")");
        }
    }

    /// Selects the carts of a source; conditions can follow.
    fn select(&self, sql: &mut Sql, source: Source, reading: Reading) {
        let key = if reading == Reading::All { String::new() } else { format!(", {} as key", self.key(source)) };
        sql.push(format!("select {} as id{key} from {} where true", source.id(), self.tables(source, reading)));
        self.conditions(sql, source, reading);
    }

    /// All carts: those in `cart_search`, and the others, if there are any.
    fn sources(&self) -> Vec<Source> {
        match self.one_by_one.is_empty() {
            true => vec![Source::Indexed],
            false => vec![Source::Indexed, Source::OneByOne],
        }
    }

    /// The tables that have the values of a source.
    fn tables(&self, source: Source, reading: Reading) -> String {
        let from_links = self.is_from_links(source, reading);
        if !matches!(source, Source::Indexed) {
            let links = if from_links { " join payment_links link on link.cart_id = carts.id" } else { "" };
            return format!("carts{links}");
        }
        let mut tables = "cart_search indexed".to_owned();
        if from_links {
            tables.push_str(" join payment_links link on link.cart_id = indexed.cart_id");
        }
        if self.reads_texts_last(source, reading) {
            tables.push_str(" join cart_search texts on texts.cart_id = indexed.cart_id");
        }
        if self.filter.recovered != Period::default() || (reading == Reading::All && self.needs_status_of_carts()) {
            tables.push_str(" join carts on carts.id = indexed.cart_id");
        }
        tables
    }

    /// Whether carts match by a status that only `carts` has.
    fn needs_status_of_carts(&self) -> bool {
        self.status().is_some_and(|status| status != CartStatus::Recovered)
    }

    /// Whether the texts are read of the carts that match otherwise, because the index that is walked has all but them.
    fn reads_texts_last(&self, source: Source, reading: Reading) -> bool {
        let by_value = reading == Reading::InOrder && self.sort.key == SortKey::TotalValue;
        matches!(source, Source::Indexed) && by_value && self.filter.text.is_some()
    }

    /// Whether the links in the state are joined, at most one of each cart: its newest.
    fn is_from_links(&self, source: Source, reading: Reading) -> bool {
        let has_links = match source {
            Source::Indexed => true,
            Source::Carts(_) => self.only_ids.is_none(),
            Source::OneByOne => false,
        };
        has_links && reading != Reading::InOrder && self.is_state_of_few_links()
    }

    /// Whether carts match by a state that few links have at a time, which indexes of `payment_links` find.
    fn is_state_of_few_links(&self) -> bool {
        matches!(self.filter.link, Some(LinkFilter::Pending | LinkFilter::Ready | LinkFilter::Processing))
    }

    /// Whether matching carts, in any order, are looked up in `cart_search`. The indexes of `carts` and `payment_links`
    /// suffice for a status and for a state of few links.
    fn needs_search_table(&self) -> bool {
        let filter = self.filter;
        let others =
            Filter { status: filter.status, link: filter.link, currency: filter.currency, ..Filter::default() };
        let by_links = self.is_state_of_few_links() && *filter == others;
        !filter.is_status_only() && !by_links
    }

    /// The ids of a page.
    fn ids(&self, start: Start, limit: i64) -> Sql {
        let (offset, after) = match start {
            Start::Offset(offset) => (offset, None),
            Start::After(cursor) => (0, Some(cursor.into_parts())),
        };
        let order = self.order();
        let mut sql = Sql::new("select id from (");
        for (place, source) in self.parts().into_iter().enumerate() {
            sql.push(if place == 0 { "(" } else { " union all (" });
            self.select(&mut sql, source, Reading::InOrder);
            let (id, key) = (source.id(), self.key(source));
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
            sql.push(format!(" order by {order} limit ")).push_bind(offset.saturating_add(limit)).push(")");
        }
        sql.push(format!(") carts order by {order} offset "));
        sql.push_bind(offset).push(" limit ").push_bind(limit);
        sql
    }

    /// The order of the list, of columns `key` and `id`.
    fn order(&self) -> &'static str {
        if self.sort.descending { "key desc, id desc" } else { "key, id" }
    }

    /// The value by which carts of a source are sorted.
    fn key(&self, source: Source) -> &'static str {
        let is_indexed = matches!(source, Source::Indexed);
        match self.sort.key {
            SortKey::CreatedAt if is_indexed => "indexed.created_at",
            SortKey::CreatedAt => "carts.created_at",
            SortKey::AbandonedAt if is_indexed => "indexed.abandoned_at",
            SortKey::AbandonedAt => "carts.abandoned_at",
            SortKey::TotalValue if is_indexed => "indexed.value",
            SortKey::TotalValue => VALUE,
            SortKey::RecoveredAt if is_indexed => {
                "coalesce((select recovered_at from carts where id = indexed.cart_id), '-infinity')"
            }
            SortKey::RecoveredAt if self.status() == Some(CartStatus::Recovered) => "carts.recovered_at",
            SortKey::RecoveredAt => "coalesce(carts.recovered_at, '-infinity')",
        }
    }

    /// The list in parts. An index has each in its order, so that Postgres merges them instead of sorting all.
    fn parts(&self) -> Vec<Source> {
        match (self.sort.key, self.status()) {
            _ if self.only_ids.is_some() => vec![Source::Carts(None)],
            (SortKey::RecoveredAt, _) => vec![Source::Carts(None)],
            // The date of expired carts bounds the index of all.
            (SortKey::CreatedAt, Some(CartStatus::Expired)) if !self.filter.is_status_only() => self.sources(),
            // Carts of one status may all be at one end of the index of all.
            (SortKey::CreatedAt, Some(status)) | (SortKey::AbandonedAt, Some(status @ CartStatus::Abandoned)) => {
                vec![Source::Carts(Some(status))]
            }
            (SortKey::CreatedAt, None) if self.filter.is_status_only() => {
                [CartStatus::Abandoned, CartStatus::Recovered, CartStatus::Expired]
                    .map(|status| Source::Carts(Some(status)))
                    .into()
            }
            _ => self.sources(),
        }
    }

    /// The only status with which a cart can match.
    fn status(&self) -> Option<CartStatus> {
        let of_link = (self.filter.link == Some(LinkFilter::Ready)).then_some(CartStatus::Abandoned);
        let of_date = (self.filter.recovered != Period::default()).then_some(CartStatus::Recovered);
        self.filter.status.or(of_link).or(of_date)
    }
}

/// When the oldest abandoned cart was left behind, or when the newest expired cart was stored. Carts expire by age, so
/// that other carts are usually few on the same side of that date. (`carts` has no index for when expired carts were left
/// behind.) `None`: there is no such cart, or none of these is asked for.
async fn date_of(conn: &mut Connection, status: Option<CartStatus>) -> sqlx::Result<Option<DateTime<Utc>>> {
    match status {
        None | Some(CartStatus::Recovered) => Ok(None),
        Some(CartStatus::Abandoned) => {
            sqlx::query_scalar!("select min(abandoned_at) from carts where status = 'abandoned'").fetch_one(conn).await
        }
        Some(CartStatus::Expired) => {
            sqlx::query_scalar!("select max(created_at) from carts where status = 'expired'").fetch_one(conn).await
        }
    }
}

/// The carts whose pending link is not going to be made: its job ran out of attempts, or was cancelled. They count as
/// carts whose link failed, and `cart_search` does not know of them.
async fn pending_without_job(conn: &mut Connection) -> sqlx::Result<Vec<String>> {
    let sql = format!("select cart_id from payment_links link where status = 'pending' and not {HAS_JOB}");
    Sql::new(sql).build_query_scalar().fetch_all(conn).await
}
