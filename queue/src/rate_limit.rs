//! A rate that all processes share: calls take turns, one every so often,
//! whichever process makes them.
//!
//! The row holds the moment at which the next call is free. A process takes
//! turns for all that wait in it by one statement, and never for later than a
//! fraction of a second: when somebody is told to slow down, nobody holds turns
//! that he took before.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::types::PgInterval;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    db::{Connection, Database, timeout::with_timeout},
    sql::interval,
};

/// How far ahead turns are taken.
const HORIZON: Duration = Duration::from_millis(100);
/// Who would wait for longer is sent away, and should come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most turns that one statement takes.
const MOST_AT_ONCE: u32 = 1_000;
/// Calls that left in time may arrive in a bunch: a little slower than the rate keeps the bunch below it.
const EASE: f64 = 1.02;

/// There is no turn right now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RateLimited {
    /// Come back after this.
    #[error("the rate is held back for {0:?}")]
    After(Duration),
    /// Postgres could not be asked; all that waited in this process are told so.
    #[error(transparent)]
    Database(Arc<sqlx::Error>),
}

type Waiting = oneshot::Sender<Result<Instant, RateLimited>>;

/// A share of a rate; clones in one process take their turns together.
#[derive(Debug, Clone)]
pub struct RateLimit {
    database: Database,
    name: &'static str,
    waiting: Option<mpsc::UnboundedSender<Waiting>>,
}

impl RateLimit {
    /// At most `per_second` calls a second, all processes together; 0 is no limit,
    /// but for being held back. Its task ends with the last clone.
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

    /// No limit and nothing shared: for a call that must not depend on Postgres.
    pub fn none(database: Database) -> Self {
        Self { database, name: "none", waiting: None }
    }

    /// Waits for the next turn.
    ///
    /// # Errors
    /// Where that would take too long: the caller should free what it holds and come back.
    pub async fn turn(&self) -> Result<(), RateLimited> {
        let Some(waiting) = &self.waiting else { return Ok(()) };
        let (sender, answer) = oneshot::channel();
        if waiting.send(sender).is_err() {
            return Ok(()); // the tokio runtime is ending
        }
        // Also who stands far back in this process' own line comes back later,
        // instead of holding a slot; his place is given up with `answer`.
        let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await else { return Err(RateLimited::After(PATIENCE)) };
        let Ok(turn) = answer else { return Ok(()) };
        tokio::time::sleep_until(turn?).await;
        Ok(())
    }

    /// Nobody in any process has a turn for this long.
    pub async fn hold_back(&self, pause: Duration) -> sqlx::Result<()> {
        let mut conn = self.database.acquire().await?;
        sqlx::query!(
            r#"
            insert into rate_limits as rate (name, next_at) values ($1, clock_timestamp() + $2)
            on conflict (name) do update set next_at = greatest(rate.next_at, clock_timestamp() + $2)
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
            batch.retain(|turn| !turn.is_closed()); // nobody's turn is not taken
            if batch.is_empty() {
                continue;
            }
            match self.turns(batch.len()).await {
                Ok(first) => {
                    for (turn, place) in batch.drain(..).zip(0..) {
                        let _ = turn.send(Ok(first + self.spacing * place)); // who went away leaves a turn unused
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

    /// When the first of so many turns is.
    async fn turns(&self, count: usize) -> Result<Instant, RateLimited> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            // One that hangs would keep everybody in this process waiting for a turn.
            match with_timeout(PATIENCE, self.take(count))
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
        // A turn that a crash of Postgres forgets is no loss: the commit does not wait for the disk.
        let first_in = sqlx::query_scalar!(
            r#"
            with lightly as materialized (select set_config('synchronous_commit', 'off', true))
            insert into rate_limits as rate (name, next_at) select $1, clock_timestamp() + $2 from lightly
            on conflict (name) do update set next_at = greatest(rate.next_at, clock_timestamp()) + $2
                where rate.next_at <= clock_timestamp() + $3
            returning extract(epoch from next_at - $2 - clock_timestamp())::float8 as "first_in!"
            "#,
            self.name,
            length,
            interval(HORIZON),
        )
        .fetch_optional(&mut conn)
        .await?;
        let taken = match first_in {
            Some(seconds) => Taken::From(Instant::now() + Duration::from_secs_f64(seconds.max(0.0))),
            None => Taken::Wait(self.free_in(&mut conn).await?),
        };
        conn.commit().await?;
        Ok(taken)
    }

    async fn free_in(&self, conn: &mut Connection) -> sqlx::Result<Duration> {
        let seconds = sqlx::query_scalar!(
            r#"select extract(epoch from next_at - clock_timestamp())::float8 as "seconds!" from rate_limits where name = $1"#,
            self.name,
        )
        .fetch_optional(conn)
        .await?;
        Ok(Duration::from_secs_f64(seconds.unwrap_or(0.0).max(0.0)))
    }
}

enum Taken {
    From(Instant),
    Wait(Duration),
}
