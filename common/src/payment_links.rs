//! Payment links: the requests for sessions at Stripe, and what became of them.
//!
//! ```text
//!             ┌────────── begin_attempt, Stripe answers ──────────┐
//! request → pending ──→ failed (Stripe refused)                    ↓
//!             │ │                              processing ←─────  open ──→ paid
//!             │ └──→ settling (asked, no answer)    │              │
//!             ↓          ↓                          ↓              ↓
//!           closed ←─────┴──────────────────  payment_failed    closing ──→ closed
//! ```
//!
//! `settling` and `closing` always have a job that closes the session at Stripe.
//! The database allows one `pending` and one session that can take money a cart.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use queue::{JobId, JobSummary};
use sqlx::PgConnection;

use crate::{
    carts::CartId,
    jobs::{ClosePaymentLink, CreatePaymentLink},
};

/// The channel that tells waiting requests about a link; the payload is the cart's id.
pub const CHANNEL: &str = "payment_links";

/// Where a request for a link stands; see the migration for each word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the migration says what each means")]
pub enum LinkStatus {
    Pending,
    Open,
    Closing,
    Settling,
    Processing,
    Paid,
    PaymentFailed,
    Closed,
    Failed,
}

impl FromStr for LinkStatus {
    type Err = sqlx::Error;

    fn from_str(text: &str) -> sqlx::Result<Self> {
        Ok(match text {
            "pending" => Self::Pending,
            "open" => Self::Open,
            "closing" => Self::Closing,
            "settling" => Self::Settling,
            "processing" => Self::Processing,
            "paid" => Self::Paid,
            "payment_failed" => Self::PaymentFailed,
            "closed" => Self::Closed,
            "failed" => Self::Failed,
            other => return Err(sqlx::Error::Decode(format!("unknown status of a payment link: {other}").into())),
        })
    }
}

/// One request for a session.
#[derive(Debug, Clone)]
pub struct PaymentLink {
    /// Whose it is; the cart may be gone.
    pub cart_id: String,
    /// 1 for the first request.
    pub version: i32,
    /// Where it stands.
    pub status: LinkStatus,
    /// The job that makes it.
    pub job_id: JobId,
    /// When the session ends; frozen, because Stripe must be asked the same thing again.
    pub session_expires_at: DateTime<Utc>,
    /// When Stripe may first have seen the request.
    pub attempted_at: Option<DateTime<Utc>>,
    /// Stripe's name of the session.
    pub session_id: Option<String>,
    /// Where the shopper pays.
    pub url: Option<String>,
    /// Why there is no link.
    pub failure: Option<String>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl PaymentLink {
    /// Whether a shopper can pay with it at `now`.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.status == LinkStatus::Open && self.session_expires_at > now
    }

    /// The key under which Stripe is asked for it, each time the same.
    pub fn idempotency_key(&self) -> String {
        format!("{}:v{}", self.cart_id, self.version)
    }
}

struct Row {
    cart_id: String,
    version: i32,
    status: String,
    job_id: JobId,
    session_expires_at: DateTime<Utc>,
    attempted_at: Option<DateTime<Utc>>,
    session_id: Option<String>,
    url: Option<String>,
    failure: Option<String>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for PaymentLink {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            cart_id: row.cart_id,
            version: row.version,
            status: row.status.parse()?,
            job_id: row.job_id,
            session_expires_at: row.session_expires_at,
            attempted_at: row.attempted_at,
            session_id: row.session_id,
            url: row.url,
            failure: row.failure,
            updated_at: row.updated_at,
        })
    }
}

/// The newest request for the cart's link.
pub async fn latest(conn: &mut PgConnection, cart_id: &str) -> sqlx::Result<Option<PaymentLink>> {
    sqlx::query_as!(
        Row,
        r#"
        select cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, failure, updated_at
        from payment_links where cart_id = $1 order by version desc limit 1
        "#,
        cart_id,
    )
    .fetch_optional(conn)
    .await?
    .map(PaymentLink::try_from)
    .transpose()
}

/// One request.
pub async fn find(conn: &mut PgConnection, cart_id: &str, version: i32) -> sqlx::Result<Option<PaymentLink>> {
    sqlx::query_as!(
        Row,
        r#"
        select cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, failure, updated_at
        from payment_links where cart_id = $1 and version = $2
        "#,
        cart_id,
        version,
    )
    .fetch_optional(conn)
    .await?
    .map(PaymentLink::try_from)
    .transpose()
}

/// Whether the money of one of the cart's sessions is under way.
pub async fn is_processing(conn: &mut PgConnection, cart_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from payment_links where cart_id = $1 and status = 'processing') as "processing!""#,
        cart_id,
    )
    .fetch_one(conn)
    .await
}

/// Requests older than `version` that may still have a session open at Stripe, oldest first.
pub async fn unsettled_before(conn: &mut PgConnection, cart_id: &str, version: i32) -> sqlx::Result<Vec<PaymentLink>> {
    sqlx::query_as!(
        Row,
        r#"
        select cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, failure, updated_at
        from payment_links
        where cart_id = $1 and version < $2 and status in ('open', 'closing', 'settling', 'processing')
        order by version
        "#,
        cart_id,
        version,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(PaymentLink::try_from)
    .collect()
}

/// Asks for a session that lives until `session_expires_at`: writes the request
/// down and queues its job. The cart must be locked, and have no live link.
///
/// A request that is pending already is joined, unless its job is dead.
pub async fn request(
    conn: &mut PgConnection,
    cart_id: &CartId,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let latest = latest(conn, cart_id.as_str()).await?;
    if let Some(pending) = latest.as_ref().filter(|link| link.status == LinkStatus::Pending) {
        match queue::find(conn, pending.job_id).await? {
            Some(job) if job.is_unfinished() => return Ok(pending.clone()),
            job => give_up(conn, pending, job.as_ref(), now).await?,
        }
    }
    let version = latest.map_or(1, |link| link.version + 1);
    insert(conn, cart_id.as_str(), version, session_expires_at, now).await
}

/// Replaces a request that can't succeed under its idempotency key by one with
/// the next version. `None`: it is not pending any more.
pub async fn replace(
    conn: &mut PgConnection,
    link: &PaymentLink,
    why: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<PaymentLink>> {
    if !settle_later(conn, link, why, now).await? {
        return Ok(None);
    }
    insert(conn, &link.cart_id, link.version + 1, link.session_expires_at, now).await.map(Some)
}

async fn insert(
    conn: &mut PgConnection,
    cart_id: &str,
    version: i32,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let job = CreatePaymentLink { cart_id: cart_id.to_owned(), version };
    // The key names this version, which is new: no other job can have it.
    let job_id = queue::enqueue(conn, &job).await?.ok_or(sqlx::Error::RowNotFound)?;
    sqlx::query!(
        r#"
        insert into payment_links (cart_id, version, status, job_id, session_expires_at, created_at, updated_at)
        values ($1, $2, 'pending', $3, $4, $5, $5)
        "#,
        cart_id,
        version,
        job_id,
        session_expires_at,
        now,
    )
    .execute(&mut *conn)
    .await?;
    Ok(PaymentLink {
        cart_id: cart_id.to_owned(),
        version,
        status: LinkStatus::Pending,
        job_id,
        session_expires_at,
        attempted_at: None,
        session_id: None,
        url: None,
        failure: None,
        updated_at: now,
    })
}

/// The job of a pending request is dead or gone, so nothing will come of it.
async fn give_up(
    conn: &mut PgConnection,
    link: &PaymentLink,
    job: Option<&JobSummary>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let why = job.and_then(|job| job.last_error.as_deref()).unwrap_or("its job was lost");
    if link.attempted_at.is_some() {
        settle_later(conn, link, why, now).await?;
    } else {
        fail(conn, link, why, now).await?;
    }
    Ok(())
}

/// pending → settling: Stripe may have made a session that we don't know of.
async fn settle_later(
    conn: &mut PgConnection,
    link: &PaymentLink,
    why: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        r#"
        update payment_links set status = 'settling', failure = $3, updated_at = $4
        where cart_id = $1 and version = $2 and status = 'pending'
        "#,
        link.cart_id,
        link.version,
        why,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if changed {
        queue::enqueue(conn, &ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version }).await?;
    }
    Ok(changed)
}

/// Notes that Stripe is about to be asked. `false`: it must not be asked any more.
pub async fn begin_attempt(conn: &mut PgConnection, link: &PaymentLink, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        r#"
        update payment_links set attempted_at = coalesce(attempted_at, $3), updated_at = $3
        where cart_id = $1 and version = $2 and status = 'pending'
        "#,
        link.cart_id,
        link.version,
        now,
    )
    .execute(conn)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// pending → open. `false`: the request was withdrawn meanwhile; the session must be closed.
pub async fn open(
    conn: &mut PgConnection,
    link: &PaymentLink,
    session_id: &str,
    url: &str,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let opened = sqlx::query!(
        r#"
        update payment_links set status = 'open', session_id = $3, url = $4, session_expires_at = $5, updated_at = $6
        where cart_id = $1 and version = $2 and status = 'pending'
        "#,
        link.cart_id,
        link.version,
        session_id,
        url,
        session_expires_at,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    notify(conn, &link.cart_id).await?;
    Ok(opened)
}

/// pending → failed: Stripe made no session and will make none.
pub async fn fail(conn: &mut PgConnection, link: &PaymentLink, why: &str, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let failed = sqlx::query!(
        r#"
        update payment_links set status = 'failed', failure = $3, updated_at = $4
        where cart_id = $1 and version = $2 and status = 'pending'
        "#,
        link.cart_id,
        link.version,
        why,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    notify(conn, &link.cart_id).await?;
    Ok(failed)
}

/// Nobody is to pay for these carts any more: what is open is closed by a job,
/// what is pending is withdrawn.
pub(crate) async fn close_all(conn: &mut PgConnection, cart_ids: &[String], now: DateTime<Utc>) -> sqlx::Result<()> {
    let touched = sqlx::query!(
        r#"
        update payment_links set updated_at = $2, status = case
            when status = 'open' then 'closing'
            when attempted_at is not null then 'settling'
            else 'closed' end
        where cart_id = any ($1) and status in ('open', 'pending')
        returning cart_id, version, status
        "#,
        cart_ids,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let jobs: Vec<ClosePaymentLink> = touched
        .iter()
        .filter(|link| link.status != "closed")
        .map(|link| ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version })
        .collect();
    if !jobs.is_empty() {
        queue::enqueue_many(conn, &jobs).await?;
    }
    for link in &touched {
        notify(conn, &link.cart_id).await?;
    }
    Ok(())
}

/// Nobody can pay with it any more: Stripe says so.
pub async fn closed(conn: &mut PgConnection, cart_id: &str, version: i32, now: DateTime<Utc>) -> sqlx::Result<bool> {
    change(conn, cart_id, version, &["pending", "open", "closing", "settling"], "closed", now).await
}

/// The shopper completed it; the money is under way.
pub async fn processing(
    conn: &mut PgConnection,
    cart_id: &str,
    version: i32,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    change(conn, cart_id, version, &["open", "closing"], "processing", now).await
}

/// The money is there.
pub async fn paid(conn: &mut PgConnection, cart_id: &str, version: i32, now: DateTime<Utc>) -> sqlx::Result<bool> {
    const ANY_OTHER: [&str; 8] =
        ["pending", "open", "closing", "settling", "processing", "payment_failed", "closed", "failed"];
    change(conn, cart_id, version, &ANY_OTHER, "paid", now).await
}

/// The money will never come.
pub async fn payment_failed(
    conn: &mut PgConnection,
    cart_id: &str,
    version: i32,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    change(conn, cart_id, version, &["open", "closing", "processing"], "payment_failed", now).await
}

async fn change(
    conn: &mut PgConnection,
    cart_id: &str,
    version: i32,
    from: &[&str],
    to: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        r#"
        update payment_links set status = $4, updated_at = $5
        where cart_id = $1 and version = $2 and status = any ($3)
        "#,
        cart_id,
        version,
        from as &[&str],
        to,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if changed {
        notify(conn, cart_id).await?;
    }
    Ok(changed)
}

/// Stripe named the session: kept, so that it can be closed.
pub async fn learn_session(conn: &mut PgConnection, link: &PaymentLink, session_id: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update payment_links set session_id = $3 where cart_id = $1 and version = $2 and session_id is null",
        link.cart_id,
        link.version,
        session_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which request a session belongs to.
pub async fn of_session(conn: &mut PgConnection, session_id: &str) -> sqlx::Result<Option<(String, i32)>> {
    let row = sqlx::query!("select cart_id, version from payment_links where session_id = $1", session_id)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| (row.cart_id, row.version)))
}

async fn notify(conn: &mut PgConnection, cart_id: &str) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, cart_id).execute(conn).await?;
    Ok(())
}
