//! The carts as the product stores them.

use sqlx::PgConnection;

/// A row of `carts`.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StoredCart {
    pub(crate) id: String,
    pub(crate) customer_email: String,
    pub(crate) status: String,
    pub(crate) status_reason: Option<String>,
    pub(crate) total: String,
    pub(crate) refunded_minor: Option<i64>,
}

impl StoredCart {
    pub(crate) async fn all(session: &mut PgConnection) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as(
            "select id, customer_email, status, status_reason, (total_minor::numeric / 100)::numeric(20, 2)::text as total,
                    refunded_minor
             from carts",
        )
        .fetch_all(session)
        .await
    }
}
