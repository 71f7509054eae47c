//! Wakes the fetcher on NOTIFY, and retries with backoff while Postgres is unavailable.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::state::Shared;
use crate::sql::CHANNEL;

/// Wakes the fetcher when a job of one of its queues is committed.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let mut reconnect = Reconnect::new("listening for jobs");
    while !shared.stopping.is_cancelled() {
        let listened = tokio::select! {
            listened = listen_once(&shared, &mut reconnect) => listened,
            () = shared.stopping.cancelled() => return,
        };
        if let Err(error) = listened {
            reconnect.failed(&error, &shared.stopping).await;
        }
    }
}

async fn listen_once(shared: &Shared, reconnect: &mut Reconnect) -> sqlx::Result<()> {
    let Some(mut listener) = shared.database.listener(&[CHANNEL]).await? else { return Ok(()) };
    listener.ignore_pool_close_event(true); // this task has its own shutdown
    reconnect.worked();
    loop {
        shared.jobs.notify_one(); // jobs may have come before LISTEN
        loop {
            match listener.try_recv().await? {
                Some(notification) if shared.serves(notification.payload()) => shared.jobs.notify_one(),
                Some(_) => {}
                None => break, // the connection was replaced
            }
        }
    }
}

/// Exponential backoff that logs the first failure and the recovery.
pub(crate) struct Reconnect {
    what: &'static str,
    delays: Option<ExponentialBackoff>,
}

impl Reconnect {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, delays: None }
    }

    pub(crate) fn worked(&mut self) {
        if self.delays.take().is_some() {
            tracing::info!("{}: Postgres is available again", self.what);
        }
    }

    pub(crate) async fn failed(&mut self, error: &sqlx::Error, until: &CancellationToken) {
        if self.delays.is_none() {
            tracing::warn!(%error, "{}: failed; retrying", self.what);
        }
        let delay = self
            .delays
            .get_or_insert_with(|| {
                ExponentialBuilder::new()
                    .with_min_delay(Duration::from_millis(100))
                    .with_max_delay(Duration::from_secs(3))
                    .without_max_times()
                    .with_jitter()
                    .build()
            })
            .next()
            .unwrap_or(Duration::from_secs(3));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = until.cancelled() => {}
        }
    }
}
