//! How far abandoned carts came: to a payment link, its opening, and a payment.

use chrono::NaiveDate;
use chrono_tz::Tz;

use crate::{db::Connection, money::Currency, time_zone};

/// The carts abandoned in a period that reached each step. Each number includes the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funnel {
    /// Carts that had a payment link. Links that ended are forgotten after 30 days, unless they were
    /// paid or are their cart's newest.
    pub linked: i64,
    /// Carts that were paid, or whose shopper went on from the page of the recovery link
    /// ([`crate::timeline::note_opening`]).
    pub opened: i64,
    /// Carts whose payment link was paid, according to Stripe.
    pub paid: i64,
}

/// Counts the carts in `currency` that were abandoned in the days of `zone` from `first` to `last`.
/// Reads all payment links: a cart that was abandoned again may have had its link long before.
pub async fn funnel(
    conn: &mut Connection,
    (first, last): (NaiveDate, NaiveDate),
    zone: Tz,
    currency: Currency,
) -> sqlx::Result<Funnel> {
    let end = last.succ_opt().unwrap_or(last);
    sqlx::query_as!(
        Funnel,
        r#"
        select count(*) as "linked!", count(*) filter (where opened or paid) as "opened!", count(*) filter (where paid) as "paid!"
        from (
            select recovery_links.openings > 0 as opened, carts.status_reason = 'payment' as paid
            from (select distinct cart_id from payment_links where opened_at is not null) links
            join carts on carts.id = links.cart_id
            left join recovery_links on recovery_links.cart_id = links.cart_id
            where carts.abandoned_at >= $1 and carts.abandoned_at < $2 and carts.currency = $3
        ) cart
        "#,
        time_zone::start_of(first, zone),
        time_zone::start_of(end, zone),
        currency.code(),
    )
    .fetch_one(conn)
    .await
}
