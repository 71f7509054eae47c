//! A rate limit shared by all processes: permits are evenly spaced in time.
//!
//! The last row of a limit has the time of the next free permit (`take_permits` in the migrations). Each
//! process reserves permits for all of its waiting callers in one statement, and only a fraction of a
//! second ahead, so that [`RateLimit::hold_back`] takes effect quickly.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::types::PgInterval;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    db::{Database, timeout::with_timeout},
    sql::interval,
};

/// How far ahead permits are reserved.
const HORIZON: Duration = Duration::from_millis(100);
/// Longest wait for a permit; after it, [`RateLimited`] is returned.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of permits that one statement reserves.
const MOST_AT_ONCE: u32 = 1_000;
/// Factor on the spacing of permits: slightly below the rate, so that calls that were sent on time
/// and arrive in a burst stay within it.
const EASE: f64 = 1.02;

/// No permit is available.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RateLimited {
    /// Try again after this time.
    #[error("the rate is held back for {0:?}")]
    After(Duration),
    /// Reserving permits failed; all waiting callers of the batch receive this error.
    #[error(transparent)]
    Database(Arc<sqlx::Error>),
}

type Waiting = oneshot::Sender<Result<Instant, RateLimited>>;

/// A handle to a shared rate limit; clones share one queue of waiting callers.
#[derive(Debug, Clone)]
pub struct RateLimit {
    database: Database,
    name: &'static str,
    waiting: Option<mpsc::UnboundedSender<Waiting>>,
}

impl RateLimit {
    /// Allows at most `per_second` calls a second in all processes together. 0 means no limit,
    /// apart from [`RateLimit::hold_back`]. Spawns a task that ends with the last clone.
    pub fn start(database: Database, name: &'static str, per_second: u32) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        let (spacing, at_once) = match per_second {
            0 => (Duration::ZERO, MOST_AT_ONCE),
            _ => (Duration::from_secs_f64(EASE / f64::from(per_second)), per_second.div_ceil(10).min(MOST_AT_ONCE)),
        };
        let at_once = usize::try_from(at_once).unwrap_or(1);
        let bucket = Bucket { database: database.clone(), name, spacing, at_once };
        tokio::spawn(bucket.hand_out(waiting));
        Self { database, name, waiting: Some(sender) }
    }

    /// No limit and no shared state, for a call that must not depend on Postgres.
    pub fn none(database: Database) -> Self {
        Self { database, name: "none", waiting: None }
    }

    /// Waits for the next permit.
    ///
    /// # Errors
    /// [`RateLimited::After`] if the wait would exceed 5 s (snooze the job instead of blocking a
    /// worker), [`RateLimited::Database`] if Postgres fails.
    pub async fn turn(&self) -> Result<(), RateLimited> {
        let Some(waiting) = &self.waiting else { return Ok(()) };
        let (sender, answer) = oneshot::channel();
        if waiting.send(sender).is_err() {
            return Ok(()); // the tokio runtime is ending
        }
        // A long queue in this process also returns an error instead of blocking a worker.
        // Dropping `answer` cancels the request.
        let Ok(answer) = tokio::time::timeout(TIMEOUT, answer).await else { return Err(RateLimited::After(TIMEOUT)) };
        let Ok(turn) = answer else { return Ok(()) };
        tokio::time::sleep_until(turn?).await;
        Ok(())
    }

    /// Stops new permits in all processes for `pause`.
    pub async fn hold_back(&self, pause: Duration) -> sqlx::Result<()> {
        let mut conn = self.database.acquire().await?;
        sqlx::query!(
            r#"
            with past as (delete from rate_limits where name = $1 and next_at < clock_timestamp())
            insert into rate_limits (name, next_at) values ($1, clock_timestamp() + $2)
            on conflict do nothing
            "#,
            self.name,
            interval(pause),
        )
        .execute(&mut conn)
        .await?;
        conn.commit().await
    }
}

struct Bucket {
    database: Database,
    name: &'static str,
    spacing: Duration,
    at_once: usize,
}

impl Bucket {
    async fn hand_out(self, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
        let mut batch = Vec::with_capacity(self.at_once);
        while waiting.recv_many(&mut batch, self.at_once).await > 0 {
            batch.retain(|turn| !turn.is_closed()); // skip callers that are gone
            if batch.is_empty() {
                continue;
            }
            match self.turns(batch.len()).await {
                Ok(first) => {
                    for (turn, place) in batch.drain(..).zip(0..) {
                        let _ = turn.send(Ok(first + self.spacing * place)); // a permit stays unused if its caller is gone
                    }
                }
                Err(error) => {
                    for turn in batch.drain(..) {
                        let _ = turn.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Reserves `count` permits and returns the time of the first.
    async fn turns(&self, count: usize) -> Result<Instant, RateLimited> {
        let give_up = Instant::now() + TIMEOUT;
        loop {
            // Without a timeout, a hanging statement would block all callers in this process.
            match with_timeout(TIMEOUT, self.take(count))
                .await
                .map_err(|error| RateLimited::Database(Arc::new(error)))?
            {
                Taken::From(first) => return Ok(first),
                Taken::Wait(wait) if Instant::now() + wait > give_up => return Err(RateLimited::After(wait)),
                Taken::Wait(wait) => tokio::time::sleep(wait.saturating_sub(HORIZON / 2)).await,
            }
        }
    }

    async fn take(&self, count: usize) -> sqlx::Result<Taken> {
        let length: PgInterval = interval(self.spacing * u32::try_from(count).unwrap_or(u32::MAX));
        let mut conn = self.database.acquire().await?;
        let taken = sqlx::query!(
            r#"select taken as "taken!", seconds as "seconds!" from take_permits($1, $2, $3)"#,
            self.name,
            length,
            interval(HORIZON),
        )
        .fetch_one(&mut conn)
        .await?;
        conn.commit().await?;
        let wait = Duration::from_secs_f64(taken.seconds.max(0.0));
        Ok(if taken.taken { Taken::From(Instant::now() + wait) } else { Taken::Wait(wait) })
    }
}

enum Taken {
    From(Instant),
    Wait(Duration),
}
