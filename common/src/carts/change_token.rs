//! A change token for what operators see of carts.

use crate::db::Connection;

/// Returns a text that differs after any cart was stored, deleted or changed its status, or a
/// webhook was refused. Each such change leaves a row in the counts that is not compacted yet (see
/// `migrations/`). There are few such rows, so this can be polled every 2 s. Compacting the counts
/// changes the token, too.
pub async fn pulse(conn: &mut Connection) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"
        select concat_ws('|',
            (select count(*) || ' ' || coalesce(sum(hashtext(slot || ' ' || period || ' ' || xmin::text)::bigint), 0)
             from cart_list_counts where slot <> 0),
            (select abandoned || ' ' || recovered || ' ' || expired from cart_status_counts),
            (select max(last_at) from refused_webhooks)
        ) as "pulse!"
        "#
    )
    .fetch_one(conn)
    .await
}
