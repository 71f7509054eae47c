//! Which of a shop's first steps have worked.

use chrono::{DateTime, Utc};

use crate::db::Connection;

/// The first steps of a shop, as the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstSteps {
    /// The cart that was stored last; `None` if there is none.
    pub newest_cart: Option<String>,
    /// Whether Stripe created a session for any payment link.
    pub has_session: bool,
    /// When the last verified webhook of Stripe was received; `None` if none is stored.
    pub last_webhook_at: Option<DateTime<Utc>>,
}

/// Reads which steps have worked. Looks at no more than a few rows of each table.
pub async fn first_steps(conn: &mut Connection) -> sqlx::Result<FirstSteps> {
    sqlx::query_as!(
        FirstSteps,
        r#"
        select (select id from carts order by created_at desc, id desc limit 1) as newest_cart,
               exists (select from payment_links where session_id is not null) as "has_session!",
               -- Events begin with evt_; other rows are answers to our own requests.
               (select received_at from stripe_events where starts_with(id, 'evt_') order by received_at desc limit 1)
                   as last_webhook_at
        "#,
    )
    .fetch_one(conn)
    .await
}
