//! A change token for what operators see of carts.

use crate::db::Connection;

/// Returns a text that differs after any cart was stored, deleted, refunded or changed its status, a
/// dispute was opened or closed, or a webhook was refused. Reads few rows, so this can be polled every
/// 2 s.
pub async fn change_token(conn: &mut Connection) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"
        select concat_ws('|',
            (select horizon from cart_count_progress),
            (select sum(abandoned) || ' ' || sum(recovered) || ' ' || sum(expired) from cart_totals),
            (select count(*) || ' ' || max(xid) from cart_count_deltas_to_add()),
            (select max(last_at) from refused_webhooks),
            (select count(*) || ' ' || max(at) from payment_reversals where state = 'open')
        ) as "change_token!"
        "#
    )
    .fetch_one(conn)
    .await
}
