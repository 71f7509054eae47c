//! Whether anything changed in what operators see of carts.

use crate::db::Connection;

/// A text that is another one after any cart was stored, deleted or changed its
/// status, or a webhook was refused. Every such change writes a row of the
/// ledger's counts that is not folded yet (see `migrations/`), and there are few
/// of those: somebody may ask every other second. (Folding changes it, too.)
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
