//! The conditions of a filter, in SQL.

use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::{Query, Sql};
use crate::carts::{
    CartStatus,
    filter::{LinkFilter, Period, ValueBound},
    search::text::{LINK_FAILED, RECOVERED, TextToFind, currency_gram},
};

impl Query<'_> {
    /// The carts of a source that match.
    pub(super) fn conditions(&self, sql: &mut Sql, source: Source, reading: Reading) {
        let filter = self.filter;
        match source {
            Source::Carts(Some(status)) => drop(sql.push(format!(" and carts.status = '{}'", status.as_str()))),
            Source::Carts(None) => {}
            Source::Indexed if self.one_by_one.is_empty() => {}
            Source::Indexed => drop(
                sql.push(" and indexed.cart_id not in (select unnest(")
                    .push_bind(self.one_by_one.clone())
                    .push("::text[]))"),
            ),
            Source::OneByOne => drop(sql.push(" and carts.id = any (").push_bind(self.one_by_one.clone()).push(")")),
        }
        if let Some(ids) = &self.only_ids {
            sql.push(" and carts.id = any (").push_bind(ids.clone()).push(")");
        }
        if self.is_checked {
            return;
        }
        let table = source.table();
        if matches!(source, Source::Indexed) {
            self.indexed_status(sql, reading);
        } else if let Some(status) = self.status() {
            // Not a parameter, because the indexes are partial.
            sql.push(format!(" and carts.status = '{}'", status.as_str()));
        }
        if filter.link == Some(LinkFilter::Ready) && self.status() != Some(CartStatus::Abandoned) {
            sql.push(" and false");
        }
        if let Some(currency) = filter.currency {
            let is_of_cart = format!("{table}.currency = '{}'", currency.code());
            match source {
                Source::Indexed => indexed_by(sql, reading, currency_gram(currency.code()), &is_of_cart),
                Source::Carts(_) | Source::OneByOne => drop(sql.push(format!(" and {is_of_cart}"))),
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
            match (source, link) {
                (Source::Indexed, LinkFilter::Failed) => indexed_by(sql, reading, LINK_FAILED, "indexed.link_failed"),
                _ if self.is_from_links(source, reading) => self.link(sql, link),
                _ => self.link_of_each(sql, link, self.id_to_look_up(source, reading)),
            }
        }
        if let Some(text) = &filter.text {
            self.text(sql, text, source, reading);
        }
    }

    /// The carts of `cart_search` with the status, which is there only if it is `recovered`.
    fn indexed_status(&self, sql: &mut Sql, reading: Reading) {
        match self.status() {
            None => {}
            // `carts` has an index for the date, of recovered carts.
            Some(CartStatus::Recovered) if self.filter.recovered != Period::default() => {
                sql.push(" and carts.status = 'recovered'");
                if reading == Reading::InOrder {
                    sql.push(" and indexed.recovered");
                }
            }
            Some(CartStatus::Recovered) => indexed_by(sql, reading, RECOVERED, "indexed.recovered"),
            Some(status @ (CartStatus::Abandoned | CartStatus::Expired)) => {
                sql.push(" and not indexed.recovered");
                self.dates_of_status(sql, status, reading);
                let (id, status) = (self.id_to_look_up(Source::Indexed, reading), status.as_str());
                match reading {
                    Reading::All => sql.push(format!(" and carts.status = '{status}'")),
                    // Nearly always true after the date. Postgres would take a comparison for rarely true, and begin with it.
                    Reading::AnyOrder | Reading::InOrder => sql.push(format!(
                        " and case when (select status from carts where id = {id}) = '{status}'
                          then true else false end"
                    )),
                };
            }
        }
    }

    /// Whether the text is looked up by its grams. A few carts with a frequent one are met soon, unless others are looked
    /// up by their grams anyway.
    fn looks_up_text(&self, reading: Reading) -> bool {
        let by_grams = self.filter.currency.is_some()
            || self.filter.link == Some(LinkFilter::Failed)
            || self.status() == Some(CartStatus::Recovered);
        match reading {
            Reading::All => true,
            Reading::AnyOrder => by_grams || !self.text_lookup.is_frequent,
            Reading::InOrder => false,
        }
    }

    /// The dates that all carts of the status have, and usually few others.
    fn dates_of_status(&self, sql: &mut Sql, status: CartStatus, reading: Reading) {
        let Some(date) = self.date_of_status else {
            sql.push(" and false");
            return;
        };
        let (comparison, is_for_an_index) = match status {
            CartStatus::Expired => ("indexed.created_at <= ", reading == Reading::InOrder),
            _ => ("indexed.abandoned_at >= ", !self.has_indexed_dates()),
        };
        match is_for_an_index {
            true => sql.push(format!(" and {comparison}")).push_bind(date),
            // Not as a condition of an index: another one leaves fewer carts.
            false => sql.push(format!(" and case when {comparison}")).push_bind(date).push(" then true else false end"),
        };
    }

    /// Whether carts match by dates that `cart_search` has.
    fn has_indexed_dates(&self) -> bool {
        [self.filter.created, self.filter.abandoned].iter().any(|period| *period != Period::default())
    }

    /// The id by which other tables are read, last.
    fn id_to_look_up(&self, source: Source, reading: Reading) -> &'static str {
        if self.reads_texts_last(source, reading) { "texts.cart_id" } else { source.id() }
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

    /// The condition that a row of `payment_links link`, the newest of its cart, is in this state. `Ready` is true of
    /// abandoned carts only, which the caller compares.
    fn state(&self, link: LinkFilter) -> String {
        match link {
            // Sessions of carts that were just recovered or expired are to be closed.
            LinkFilter::None => format!(
                "(link.status in ('closing', 'paid', 'closed') or link.status = 'open' and (
                  link.session_expires_at <= '{}' or (select status from carts where id = link.cart_id) <> 'abandoned'))",
                self.now.to_rfc3339()
            ),
            LinkFilter::Pending => format!("(link.status = 'pending' and {HAS_JOB})"),
            LinkFilter::Processing => "link.status = 'processing'".to_owned(),
            LinkFilter::Ready => {
                format!("link.status = 'open' and link.session_expires_at > '{}'", self.now.to_rfc3339())
            }
            LinkFilter::Failed => format!(
                "(link.status in ('failed', 'payment_failed', 'settling') or (link.status = 'pending' and not {HAS_JOB}))"
            ),
        }
    }

    /// The joined link is the newest of its cart, and in this state.
    fn link(&self, sql: &mut Sql, link: LinkFilter) {
        sql.push(format!(
            " and {} and not exists (
                select from payment_links later where later.cart_id = link.cart_id and later.version > link.version)",
            self.state(link)
        ));
    }

    /// The same, cart by cart. A cart without a link has none that is in a state.
    fn link_of_each(&self, sql: &mut Sql, link: LinkFilter, id: &str) {
        // Not a comparison, which Postgres takes for rarely true, so that it would rather read and sort all.
        sql.push(format!(
            " and case when coalesce((select {} from payment_links link where link.cart_id = {id}
                                     order by link.version desc limit 1), {}) then true else false end",
            self.state(link),
            link == LinkFilter::None
        ));
    }

    /// The cart has the text, or it is its id.
    fn text(&self, sql: &mut Sql, text: &TextToFind, source: Source, reading: Reading) {
        sql.push(" and (");
        match source {
            Source::Indexed => {
                if self.looks_up_text(reading) {
                    sql.push("indexed.grams @> ").push_bind(self.text_lookup.grams.clone()).push(" and ");
                }
                let table = if self.reads_texts_last(source, reading) { "texts" } else { "indexed" };
                sql.push(format!("strpos({table}.text, ")).push_bind(text.folded().to_owned()).push(") > 0");
            }
            Source::OneByOne => drop(sql.push("carts.id = any (").push_bind(self.with_text.clone()).push(")")),
            Source::Carts(_) => {
                sql.push("case when carts.id = any (").push_bind(self.one_by_one.clone());
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

/// The carts of `cart_search` for which the condition is true. They are looked up by its gram, unless they are read in
/// the order of the list.
fn indexed_by(sql: &mut Sql, reading: Reading, gram: i32, condition: &str) {
    match reading {
        // Not two comparisons: Postgres would take both for rarely true.
        Reading::All | Reading::AnyOrder => {
            sql.push(format!(" and indexed.grams @> '{{{gram}}}' and case when {condition} then true else false end"))
        }
        Reading::InOrder => sql.push(format!(" and {condition}")),
    };
}

/// How carts are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All that match.
    All,
    /// A few of them, with the best index.
    AnyOrder,
    /// The first ones in the order of the list.
    InOrder,
}

/// Where carts are read.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// `carts`, perhaps those with a status.
    Carts(Option<CartStatus>),
    /// Those in `cart_search`.
    Indexed,
    /// The others, from `carts`.
    OneByOne,
}

/// The job that makes a pending link is not finished. A link without one was not made: the job ran out of attempts, or
/// was cancelled.
pub(super) const HAS_JOB: &str =
    "exists (select from jobs where jobs.id = link.job_id and jobs.state in ('pending', 'running'))";

/// The total of a cart, as `cart_search` has it.
pub(super) const VALUE: &str = "cart_value(carts.total_minor, carts.currency)";

impl Source {
    /// The table with the dates, the currency and the total by which carts are found.
    fn table(self) -> &'static str {
        if matches!(self, Self::Indexed) { "indexed" } else { "carts" }
    }

    pub(super) fn id(self) -> &'static str {
        if matches!(self, Self::Indexed) { "indexed.cart_id" } else { "carts.id" }
    }
}
