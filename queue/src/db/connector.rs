//! Opens connections, and decides which to use again.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

use super::{failover::FailoverGuard, timeout::with_timeout};

pub(crate) type Pool = managed::Pool<Connector>;

/// The longest wait for a connection. After it the caller gets [`sqlx::Error::PoolTimedOut`].
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest wait for the answer to a check of an idle connection.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that was idle for longer is checked before its next use. Longer than the interval of
/// the queue's poll, which would otherwise take twice as many round trips.
const CHECK_AFTER: Duration = Duration::from_secs(2);

/// How often Postgres checks, while a statement runs or waits for a lock, that its client is still
/// connected: after the connection was closed, the statement goes on for this long at most.
pub(crate) const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection is not used for longer, so that its server's memory stays bounded.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// Opens connections and decides which to use again.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(super) options: PgConnectOptions,
    pub(super) settings: String,
    pub(super) failover: Arc<FailoverGuard>,
}

impl managed::Manager for Connector {
    /// `None` once it was closed because its statement did not end.
    type Type = Option<PgConnection>;
    type Error = sqlx::Error;

    /// Retries while Postgres is starting; the caller's timeout ends it.
    async fn create(&self) -> sqlx::Result<Option<PgConnection>> {
        let open = || async {
            let mut conn = self.options.connect().await?;
            if !self.settings.is_empty() {
                sqlx::raw_sql(AssertSqlSafe(self.settings.clone())).execute(&mut conn).await?;
            }
            Ok(conn)
        };
        let backoff = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .with_total_delay(Some(ACQUIRE_TIMEOUT - Duration::from_millis(500)))
            .without_max_times();
        open.retry(backoff).when(is_starting).await.map(Some)
    }

    async fn recycle(&self, conn: &mut Option<PgConnection>, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        let Some(conn) = conn else { return Err(RecycleError::message("closed")) };
        if metrics.age() > MAX_AGE || self.failover.is_stale(metrics.created) {
            return Err(RecycleError::message("too old"));
        }
        if metrics.last_used() > CHECK_AFTER || self.failover.is_check_due() {
            let is_writable = with_timeout(CHECK_TIMEOUT, self.failover.is_writable(conn)).await?;
            if !is_writable {
                return Err(RecycleError::message("read-only"));
            }
        }
        Ok(())
    }
}

/// Whether Postgres, or its host, is starting.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}
