//! Detects changes for open pages. NOTIFY reports payment links; everything else is polled every
//! two seconds, by one task per process however many pages are open, and by none while no page is.
//!
//! A page is rendered before it begins to watch. Changes in between are found by loading it again:
//! at its `hello` event, or at the first poll if there was none before.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{carts, db::Database, mutex::lock, operations};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{MissedTickBehavior, interval},
};

use crate::routes::payment_links::wait::PgNotifications;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Number of buffered changes; a page that falls behind loads everything again.
const BACKLOG: usize = 64;

/// A change of something that pages show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Carts or refused webhooks changed.
    Carts,
    /// The link of the cart with this id changed.
    Cart(String),
    /// Jobs, queues, schedules or workers changed.
    Jobs,
    /// The database can't be read: pages that load themselves again find out.
    Unknown,
}

/// Notifies open pages of changes.
#[derive(Debug)]
pub(crate) struct Watch {
    database: Database,
    news: PgNotifications,
    sender: broadcast::Sender<Change>,
    looking: Mutex<bool>,
}

impl Watch {
    pub(crate) fn new(database: Database, news: PgNotifications) -> Self {
        Self { database, news, sender: broadcast::channel(BACKLOG).0, looking: Mutex::new(false) }
    }

    /// Subscribes to changes from now on. The first subscriber starts the polling, which ends when
    /// none is left.
    pub(crate) fn begin(self: &Arc<Self>) -> broadcast::Receiver<Change> {
        let mut looking = lock(&self.looking);
        let receiver = self.sender.subscribe();
        if !std::mem::replace(&mut *looking, true) {
            tokio::spawn(self.clone().look());
        }
        receiver
    }

    async fn look(self: Arc<Self>) {
        let mut news = self.news.subscribe();
        let mut before = None;
        let mut is_away = false;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if self.is_over() {
                        return;
                    }
                    match self.change_tokens().await {
                        Ok(now) => {
                            is_away = false;
                            self.publish(before.replace(now.clone()), now);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "could not look for changes");
                            if !std::mem::replace(&mut is_away, true) {
                                drop(self.sender.send(Change::Unknown));
                            }
                        }
                    }
                }
                received = news.recv() => match received {
                    Ok(cart) => drop(self.sender.send(Change::Cart(cart))),
                    Err(RecvError::Lagged(_)) => drop(self.sender.send(Change::Carts)),
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Holds the lock, so that a subscriber from now on starts the polling again.
    fn is_over(&self) -> bool {
        let mut looking = lock(&self.looking);
        *looking = self.sender.receiver_count() > 0;
        !*looking
    }

    async fn change_tokens(&self) -> sqlx::Result<(String, String)> {
        let mut conn = self.database.acquire().await?;
        Ok((carts::change_token(&mut conn).await?, operations::change_token(&mut conn).await?))
    }

    fn publish(&self, before: Option<(String, String)>, (carts, jobs): (String, String)) {
        let (carts_before, jobs_before) = before.unzip();
        if carts_before != Some(carts) {
            drop(self.sender.send(Change::Carts)); // the last subscriber may be gone
        }
        if jobs_before != Some(jobs) {
            drop(self.sender.send(Change::Jobs));
        }
    }
}
