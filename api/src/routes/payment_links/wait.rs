//! Waits for the worker to make a payment link: woken by NOTIFY, with slow polling in case a
//! notification is lost.

use std::time::Duration;

use common::{
    db::Database,
    payment_links::{self, CHANNEL, LinkStatus, PaymentLink},
};
use tokio::{sync::broadcast, time::Instant};

/// Poll interval with LISTEN.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Poll interval without LISTEN.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// Number of buffered notifications; a receiver that falls behind polls instead.
const BACKLOG: usize = 1_024;

/// Distributes Postgres notifications of changed payment links.
#[derive(Debug, Clone)]
pub struct PgNotifications {
    sender: broadcast::Sender<String>,
    listening: bool,
}

impl PgNotifications {
    /// Listens on a dedicated connection for as long as the tokio runtime lives. Without LISTEN,
    /// waiting requests poll.
    pub fn start(database: Database) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let listening = database.listens();
        if listening {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut said = false;
                loop {
                    let Err(error) = forward(&database, &sender, &mut said).await;
                    if database.is_closed() {
                        return;
                    }
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "can't listen for payment links, trying again; requests poll meanwhile");
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        Self { sender, listening }
    }

    /// The ids of carts whose links change from now on; none without LISTEN.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.sender.subscribe()
    }
}

async fn forward(
    database: &Database,
    sender: &broadcast::Sender<String>,
    said: &mut bool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let Some(mut listener) = database.listener(&[CHANNEL]).await? else { std::future::pending().await };
    if std::mem::take(said) {
        tracing::info!("listening for payment links again");
    }
    loop {
        let _ = sender.send(listener.recv().await?.payload().to_owned()); // no request may be waiting
    }
}

/// A subscription to link changes. Begin it before the request is committed, or a notification may
/// be missed.
pub(crate) struct LinkWait {
    news: broadcast::Receiver<String>,
    look_every: Duration,
}

impl LinkWait {
    pub(crate) fn begin(news: &PgNotifications) -> Self {
        let look_every = if news.listening { LOOK_EVERY } else { POLL_EVERY };
        Self { news: news.sender.subscribe(), look_every }
    }

    /// Waits until the newest request for the cart's link is not pending any more, or `at_most` has
    /// passed; returns that request. `asked` is the newest request as found after the wait began.
    /// `None` if there is none (any more).
    pub(crate) async fn settled(
        mut self,
        database: &Database,
        asked: PaymentLink,
        at_most: Duration,
    ) -> sqlx::Result<Option<PaymentLink>> {
        let deadline = Instant::now() + at_most;
        let cart_id = asked.cart_id.clone();
        let mut newest = Some(asked);
        while newest.as_ref().is_some_and(|link| link.status == LinkStatus::Pending) && Instant::now() < deadline {
            let look_at = deadline.min(Instant::now() + self.look_every);
            let _ = tokio::time::timeout_at(look_at, self.wait_for_notification(&cart_id)).await;
            newest = payment_links::latest(&mut database.acquire().await?, &cart_id).await?;
        }
        Ok(newest)
    }

    async fn wait_for_notification(&mut self, cart_id: &str) {
        loop {
            match self.news.recv().await {
                Ok(changed) if changed == cart_id => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
