//! A connection that receives NOTIFY.

use std::{io, time::Instant};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::sync::watch;

use super::failover::FailoverGuard;

/// A connection that listens. A read-only server sends no notifications: when this process finds
/// its server read-only, listening ends with an error, as if the connection had been cut.
#[derive(Debug)]
pub struct Listener {
    inner: PgListener,
    since: watch::Receiver<Instant>,
}

impl Listener {
    pub(crate) async fn listen(pool: &PgPool, failover: &FailoverGuard, channels: &[&str]) -> sqlx::Result<Self> {
        let since = failover.watch();
        let mut inner = PgListener::connect_with(pool).await?;
        // A standby refuses LISTEN.
        inner.listen_all(channels.iter().copied()).await.inspect_err(|error| failover.observe(error))?;
        Ok(Self { inner, since })
    }

    /// See [`PgListener::ignore_pool_close_event`].
    pub fn ignore_pool_close_event(&mut self, ignore: bool) {
        self.inner.ignore_pool_close_event(ignore);
    }

    /// The next notification. `None` after the connection was lost and reopened: notifications may
    /// be missing.
    ///
    /// # Errors
    /// The connection can't be reopened, or its server is read-only.
    pub async fn try_recv(&mut self) -> sqlx::Result<Option<PgNotification>> {
        tokio::select! {
            received = self.inner.try_recv() => received,
            Ok(()) = self.since.changed() => {
                let why = "the server of LISTEN is read-only";
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)))
            }
        }
    }

    /// The next notification; reopens lost connections.
    ///
    /// # Errors
    /// The connection can't be reopened, or its server is read-only.
    pub async fn recv(&mut self) -> sqlx::Result<PgNotification> {
        loop {
            if let Some(notification) = self.try_recv().await? {
                return Ok(notification);
            }
        }
    }
}
