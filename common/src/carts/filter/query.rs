//! The statements of a list with filters.

mod conditions;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use self::conditions::{Reading, Source, VALUE};
use super::{FEW, Filter, LinkFilter, Period};
use crate::{
    carts::{
        self, Cart, CartStatus,
        list::{CartPage, Cursor, Sort, SortKey, SortValue, Start},
        search::{
            find_external, ids_by_email,
            index::{MAX_UNINDEXED, rarest_grams, unindexed, with_text},
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
    /// Whether all of `only_ids` are known to match.
    is_checked: bool,
    /// The carts that are not in `cart_search`, or as they were.
    unindexed: Vec<String>,
    /// Those of them that have the text.
    with_text: Vec<String>,
    /// The rarest grams of the text.
    grams: Vec<i32>,
    /// The cart whose whole id is the text.
    named: Option<String>,
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
            unindexed: Vec::new(),
            with_text: Vec::new(),
            grams: Vec::new(),
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
            if query.only_ids.is_none() {
                query.grams = rarest_grams(&mut *conn, text).await?;
            }
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
        let sources = match self.only_ids.is_some() || !self.needs_search_table() {
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
        let (filter, from_links) = (self.filter, self.is_from_links(source, reading));
        if !matches!(source, Source::Indexed) {
            let links = if from_links { " join payment_links link on link.cart_id = carts.id" } else { "" };
            return format!("carts{links}");
        }
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
        let has_links = match source {
            Source::Indexed => true,
            Source::Carts(_) => self.only_ids.is_none(),
            Source::Unindexed => false,
        };
        has_links && reading == Reading::AnyOrder && self.is_state_of_links()
    }

    /// Whether only carts with a link in some state match.
    fn is_state_of_links(&self) -> bool {
        self.filter.link.is_some_and(|link| link != LinkFilter::None)
    }

    /// Whether matching carts, in any order, are looked up in `cart_search`. The indexes of `carts` and `payment_links`
    /// suffice for a status and for a state of links.
    fn needs_search_table(&self) -> bool {
        let filter = self.filter;
        let others =
            Filter { status: filter.status, link: filter.link, currency: filter.currency, ..Filter::default() };
        let by_links = self.is_state_of_links() && *filter == others;
        !filter.is_status_only() && !by_links
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
}
