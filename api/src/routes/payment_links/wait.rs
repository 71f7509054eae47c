//! Waiting for the worker to make a link: told by NOTIFY, with a slow look now
//! and then in case one got lost.

use std::time::Duration;

use common::{
    api_keys,
    db::Database,
    payment_links::{self, CHANNEL, LinkStatus, PaymentLink},
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

/// How often to look without being told, where NOTIFY tells …
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// … and where there is no LISTEN.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// News that nobody has read yet; who falls behind simply looks.
const BACKLOG: usize = 1_024;

/// Tells which carts' links changed, and, because a process listens on one
/// connection only, that the keys to the API did.
#[derive(Debug, Clone)]
pub struct LinkNews {
    sender: broadcast::Sender<String>,
    keys: watch::Sender<()>,
    listening: bool,
}

impl LinkNews {
    /// Listens on a connection of its own, for as long as the tokio runtime
    /// lives; where there is no LISTEN waiting requests poll.
    pub fn start(database: Database) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let (keys, _) = watch::channel(());
        let listening = database.listens();
        if listening {
            let (sender, keys) = (sender.clone(), keys.clone());
            tokio::spawn(async move {
                let mut said = false;
                loop {
                    let Err(error) = forward(&database, &sender, &keys, &mut said).await;
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
        Self { sender, keys, listening }
    }

    /// The carts whose links change from now on; none where there is no LISTEN.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.sender.subscribe()
    }

    /// Changes of the keys to the API from now on; none where there is no LISTEN.
    pub(crate) fn key_changes(&self) -> watch::Receiver<()> {
        self.keys.subscribe()
    }
}

async fn forward(
    database: &Database,
    sender: &broadcast::Sender<String>,
    keys: &watch::Sender<()>,
    said: &mut bool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let Some(mut listener) = database.listener(&[CHANNEL, api_keys::CHANNEL]).await? else {
        std::future::pending().await
    };
    keys.send_replace(()); // what changed before we listened
    if std::mem::take(said) {
        tracing::info!("listening for payment links again");
    }
    loop {
        let news = listener.recv().await?;
        if news.channel() == api_keys::CHANNEL {
            keys.send_replace(());
        } else {
            let _ = sender.send(news.payload().to_owned()); // nobody waits: fine
        }
    }
}

/// A subscription; begin it before the request is committed, or the news may come first.
pub(crate) struct LinkWait {
    news: broadcast::Receiver<String>,
    look_every: Duration,
}

impl LinkWait {
    pub(crate) fn begin(news: &LinkNews) -> Self {
        let look_every = if news.listening { LOOK_EVERY } else { POLL_EVERY };
        Self { news: news.sender.subscribe(), look_every }
    }

    /// The newest request for the cart's link, once it is not pending any more
    /// or `at_most` has passed. `asked` is the newest as it was found after the
    /// wait began. `None`: there is none (any more).
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
            let _ = tokio::time::timeout_at(look_at, self.told_of(&cart_id)).await;
            newest = payment_links::latest(&mut database.acquire().await?, &cart_id).await?;
        }
        Ok(newest)
    }

    async fn told_of(&mut self, cart_id: &str) {
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
