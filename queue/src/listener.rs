//! Hearing NOTIFY.

use std::{io, time::Instant};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification},
};
use tokio::sync::watch;

use crate::kin::Kin;

/// A connection that listens. On a server that takes no writes any more nobody
/// notifies: where a statement of this process found that out, listening ends
/// with an error, as if the connection had been cut.
#[derive(Debug)]
pub struct Listener {
    inner: PgListener,
    since: watch::Receiver<Instant>,
}

impl Listener {
    pub(crate) async fn listen(pool: &PgPool, kin: &Kin, channels: &[&str]) -> sqlx::Result<Self> {
        let since = kin.watch();
        let mut inner = PgListener::connect_with(pool).await?;
        // A standby refuses LISTEN.
        inner.listen_all(channels.iter().copied()).await.inspect_err(|error| kin.refused(error))?;
        Ok(Self { inner, since })
    }

    /// As [`PgListener::ignore_pool_close_event`].
    pub fn ignore_pool_close_event(&mut self, ignore: bool) {
        self.inner.ignore_pool_close_event(ignore);
    }

    /// The next notification; `None`: the connection was lost and is there again.
    ///
    /// # Errors
    /// If it can't be made anew, or leads to a server where nobody notifies.
    pub async fn try_recv(&mut self) -> sqlx::Result<Option<PgNotification>> {
        tokio::select! {
            received = self.inner.try_recv() => received,
            Ok(()) = self.since.changed() => {
                let why = "listening on a server that takes no writes";
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)))
            }
        }
    }

    /// The next notification.
    ///
    /// # Errors
    /// As [`Listener::try_recv`].
    pub async fn recv(&mut self) -> sqlx::Result<PgNotification> {
        loop {
            if let Some(notification) = self.try_recv().await? {
                return Ok(notification);
            }
        }
    }
}
