//! Changes of a cart's status. Each is one guarded update, whose row count shows whether it took
//! effect.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::CartId;
use crate::{audit::KeyName, db::Connection, payment_links};

/// How a cart was recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[schema(rename_all = "lowercase")]
pub enum RecoveredBy {
    /// Stripe reported that a payment link was paid.
    Payment,
    /// The shop marked the cart as recovered, through the API, the dashboard or SQL.
    Manual,
    /// The cart was recovered before it was imported.
    Import,
}

impl RecoveredBy {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The value of `status_reason`, which the timeline shows as `why`.
    fn status_reason(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Manual => "operator",
            Self::Import => "import",
        }
    }
}

/// abandoned or expired → recovered. `false` if the cart was in neither status; nothing changed.
///
/// Closes the cart's other sessions, so that nobody pays twice. `key` is the API key that did it, if
/// one did.
pub async fn recover(
    conn: &mut Connection,
    id: &CartId,
    by: RecoveredBy,
    recovered_at: DateTime<Utc>,
    key: Option<&KeyName>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    Ok(!recover_all(conn, &[id.as_str()], by, &[recovered_at], key, now).await?.is_empty())
}

/// Like [`recover`] for several carts, each with a time. Returns the ids of the recovered
/// carts. `ids` must not contain duplicates.
pub async fn recover_all(
    conn: &mut Connection,
    ids: &[&str],
    by: RecoveredBy,
    recovered_at: &[DateTime<Utc>],
    key: Option<&KeyName>,
    now: DateTime<Utc>,
) -> sqlx::Result<HashSet<String>> {
    let recovered = sqlx::query_scalar!(
        r#"
        update carts set status = 'recovered', recovered_at = greatest(payment.at, abandoned_at), expired_at = null,
                         status_changed_at = $3, status_reason = $4, status_key = $5, updated_at = $3,
                         -- The first payment: a second one at the same moment recovers nothing.
                         -- ("|| ''" keeps the planner from the index of all ended links.)
                         paid_minor = (select coalesce(link.paid_minor, amount_minor) from payment_links link
                                       where link.cart_id = carts.id and link.status || '' = 'paid'
                                         and link.currency = carts.currency
                                       order by link.paid_at, link.version limit 1)
        from unnest($1::text[], $2::timestamptz[]) as payment (cart_id, at)
        where id = payment.cart_id and status in ('abandoned', 'expired')
        returning id
        "#,
        ids as &[&str],
        recovered_at,
        now,
        by.status_reason(),
        key.map(KeyName::as_str),
    )
    .fetch_all(&mut *conn)
    .await?;
    if !recovered.is_empty() {
        payment_links::close_all(conn, &recovered, now).await?;
    }
    Ok(recovered.into_iter().collect())
}

/// abandoned → expired, with an API key. `false` if the cart was not abandoned; nothing changed.
pub async fn expire(conn: &mut Connection, id: &CartId, key: &KeyName, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        r#"
        update carts set status = 'expired', expired_at = $2, status_changed_at = $2, status_reason = 'operator', status_key = $3,
                         updated_at = $2
        where id = $1 and status = 'abandoned'
        "#,
        id.as_str(),
        now,
        key.as_str(),
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if changed {
        payment_links::close_all(conn, &[id.to_string()], now).await?;
    }
    Ok(changed)
}

/// expired → abandoned, with an API key. `false` if the cart was not expired; nothing changed.
pub async fn reopen(conn: &mut Connection, id: &CartId, key: &KeyName, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        r#"
        update carts set status = 'abandoned', expired_at = null, status_changed_at = $2, status_reason = 'operator',
                         status_key = $3, updated_at = $2
        where id = $1 and status = 'expired'
        "#,
        id.as_str(),
        now,
        key.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// abandoned or expired → abandoned since `abandoned_at`, because the shop sent the cart again.
/// `false` if the cart was in neither status; nothing changed.
pub async fn abandon_again(
    conn: &mut Connection,
    id: &str,
    abandoned_at: DateTime<Utc>,
    key: &KeyName,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        r#"
        update carts set status = 'abandoned', expired_at = null, abandoned_at = $2, updated_at = $3,
                         status_changed_at = case when status = 'expired' then $3 else status_changed_at end,
                         status_reason = case when status = 'expired' then 'api' else status_reason end,
                         status_key = case when status = 'expired' then $4 else status_key end
        where id = $1 and status in ('abandoned', 'expired')
        "#,
        id,
        abandoned_at,
        now,
        key.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(result.rows_affected() == 1)
}
