//! Dead jobs that need an operator. Cancelled jobs do not, and neither do jobs of payment links
//! that a later link, a payment or the cart's end has made pointless.

use crate::db::Connection;

pub use queue::DEAD_LIMIT;

/// The dead jobs of a queue that need an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJobs {
    /// The queue.
    pub queue: String,
    /// Jobs that a retry may complete.
    pub failed: i64,
    /// Carts whose newest payment link ended without a session. A retry of the job does nothing; the
    /// cart needs a new link.
    pub without_link: i64,
}

/// What a retry of the dead job of a payment link would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedLink {
    /// The cart of the link.
    pub cart_id: String,
    /// Whether the cart exists, is abandoned, and has neither a later link nor a payment in progress.
    pub needs_link: bool,
}

/// The dead jobs that need an operator, by queue, among the newest [`DEAD_LIMIT`] dead jobs. Queues
/// without any are left out.
pub async fn dead_jobs(conn: &mut Connection) -> sqlx::Result<Vec<DeadJobs>> {
    sqlx::query_as!(
        DeadJobs,
        r#"
        with dead as materialized (
            select queue, kind, payload, last_error from jobs where state = 'dead' order by finished_at desc limit $1
        ),
        sorted as (
            select dead.queue, link.status is null or link.status = 'pending' as may_be_retried,
                   carts.status = 'abandoned' and not exists (
                       select from payment_links other
                       where other.cart_id = link.cart_id and (other.version > link.version or other.status = 'processing')
                   ) as needs_link
            from dead
            left join payment_links link on dead.kind = 'create_payment_link'
                and link.cart_id = dead.payload ->> 'cartId' and link.version = (dead.payload ->> 'version')::integer
            left join carts on carts.id = link.cart_id
            where dead.last_error is distinct from $2
        )
        select queue as "queue!", count(*) filter (where may_be_retried) as "failed!",
               count(*) filter (where not may_be_retried and needs_link) as "without_link!"
        from sorted
        where may_be_retried or needs_link
        group by queue
        order by queue
        "#,
        DEAD_LIMIT,
        queue::CANCELLED,
    )
    .fetch_all(conn)
    .await
}

/// The payment link of a dead job, if the link has ended, so that a retry would do nothing; `None`
/// for other jobs.
pub async fn ended_link(conn: &mut Connection, job: queue::JobId) -> sqlx::Result<Option<EndedLink>> {
    sqlx::query_as!(
        EndedLink,
        r#"
        select link.cart_id, coalesce(carts.status = 'abandoned', false) and not exists (
                   select from payment_links other
                   where other.cart_id = link.cart_id and (other.version > link.version or other.status = 'processing')
               ) as "needs_link!"
        from jobs
        join payment_links link on jobs.kind = 'create_payment_link'
            and link.cart_id = jobs.payload ->> 'cartId' and link.version = (jobs.payload ->> 'version')::integer
        left join carts on carts.id = link.cart_id
        where jobs.id = $1 and jobs.state = 'dead' and link.status <> 'pending'
        "#,
        job,
    )
    .fetch_optional(conn)
    .await
}
