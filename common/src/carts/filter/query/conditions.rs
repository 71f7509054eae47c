//! The conditions of a filter, in SQL.

use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::{Query, Sql};
use crate::carts::{
    CartStatus,
    filter::{LinkFilter, ValueBound},
    search::text::{TextToFind, currency_gram},
};

impl Query<'_> {
    /// The carts of a source that match.
    pub(super) fn conditions(&self, sql: &mut Sql, source: Source, reading: Reading) {
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
            match matches!(source, Source::Indexed) && reading == Reading::AnyOrder {
                // Not two comparisons: Postgres would take both for rarely true.
                true => sql
                    .push(" and indexed.grams @> ")
                    .push_bind(vec![currency_gram(currency.code())])
                    .push(" and case when indexed.currency = ")
                    .push_bind(currency.code().to_owned())
                    .push(" then true else false end"),
                false => sql.push(format!(" and {table}.currency = ")).push_bind(currency.code().to_owned()),
            };
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

    /// The condition that a row of `payment_links link`, the newest of its cart, is in this state.
    fn state(&self, link: LinkFilter) -> String {
        let any = [LinkFilter::Pending, LinkFilter::Ready, LinkFilter::Failed, LinkFilter::Processing];
        match link {
            LinkFilter::None => format!("not ({})", any.map(|link| self.state(link)).join(" or ")),
            LinkFilter::Pending => format!("(link.status = 'pending' and {HAS_JOB})"),
            LinkFilter::Processing => "link.status = 'processing'".to_owned(),
            // Sessions of carts that were just recovered or expired are to be closed.
            LinkFilter::Ready => format!(
                "(link.status = 'open' and carts.status = 'abandoned' and link.session_expires_at > '{}')",
                self.now.to_rfc3339()
            ),
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
    fn link_of_each(&self, sql: &mut Sql, link: LinkFilter) {
        // Not a comparison, which Postgres takes for rarely true, so that it would rather read and sort all.
        sql.push(format!(
            " and case when coalesce((select {} from payment_links link where link.cart_id = carts.id
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
                if reading == Reading::AnyOrder {
                    sql.push("indexed.grams @> ").push_bind(self.grams.clone()).push(" and ");
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
pub(super) enum Reading {
    /// All, or any few, with the best index.
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
    /// The others.
    Unindexed,
}

/// The job that makes a pending link is not finished. A link without one was not made: the job ran out of attempts, or
/// was cancelled.
const HAS_JOB: &str = "exists (select from jobs where jobs.id = link.job_id and jobs.state in ('pending', 'running'))";

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
