//! What changed, for pages that are open: links are told of by NOTIFY, the rest
//! is looked for every other second, by one look a process however many watch,
//! and by none while nobody does.
//!
//! A page is rendered before it begins to watch. What changes in between is seen
//! by loading it again: at its hello, or at the first look if there was none yet.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{carts, db::Database, operations};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{MissedTickBehavior, interval},
};

use crate::{http::mutex::lock, routes::payment_links::wait::LinkNews};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Who falls behind loads everything again.
const BACKLOG: usize = 64;

/// Something that pages show is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Of carts, or of refused webhooks.
    Carts,
    /// One cart's link.
    Cart(String),
    /// Of jobs, queues, schedules or workers.
    Jobs,
}

/// Tells pages of changes.
#[derive(Debug)]
pub(crate) struct Watch {
    database: Database,
    news: LinkNews,
    sender: broadcast::Sender<Change>,
    looking: Mutex<bool>,
}

impl Watch {
    pub(crate) fn new(database: Database, news: LinkNews) -> Self {
        Self { database, news, sender: broadcast::channel(BACKLOG).0, looking: Mutex::new(false) }
    }

    /// From now on. The first who watches starts the looking, the last who leaves ends it.
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
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if self.is_over() {
                        return;
                    }
                    match self.pulses().await {
                        Ok(now) => self.tell(before.replace(now.clone()), now),
                        // The pages stay as they are; who loads one is told.
                        Err(error) => tracing::debug!(%error, "could not look for changes"),
                    }
                }
                told = news.recv() => match told {
                    Ok(cart) => drop(self.sender.send(Change::Cart(cart))),
                    Err(RecvError::Lagged(_)) => drop(self.sender.send(Change::Carts)),
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Under the lock, so that whoever begins to watch now starts the looking anew.
    fn is_over(&self) -> bool {
        let mut looking = lock(&self.looking);
        *looking = self.sender.receiver_count() > 0;
        !*looking
    }

    async fn pulses(&self) -> sqlx::Result<(String, String)> {
        let mut conn = self.database.acquire().await?;
        Ok((carts::change_token::pulse(&mut conn).await?, operations::change_token(&mut conn).await?))
    }

    fn tell(&self, before: Option<(String, String)>, (carts, jobs): (String, String)) {
        let (carts_before, jobs_before) = before.unzip();
        if carts_before != Some(carts) {
            drop(self.sender.send(Change::Carts)); // nobody listens any more: fine
        }
        if jobs_before != Some(jobs) {
            drop(self.sender.send(Change::Jobs));
        }
    }
}
