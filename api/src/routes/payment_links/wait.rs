//! Waits for the worker to make a payment link: woken by NOTIFY, with slow polling in case a
//! notification is lost.

use std::time::Duration;

use common::{
    batch::{BatchError, Batcher},
    carts::CartId,
    db::Database,
    payment_links::{self, CHANNEL, LinkStatus, PaymentLink},
};
use tokio::{sync::broadcast, time::Instant};

use super::batches::FindNewest;

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
        self,
        newest: &Batcher<FindNewest>,
        asked: PaymentLink,
        at_most: Duration,
    ) -> Result<Option<PaymentLink>, BatchError> {
        let cart_id = asked.cart_id.clone();
        self.poll(asked, at_most, || newest.run(cart_id.clone())).await
    }

    /// Waits until the worker has looked up the cart's payment at Stripe, for at most `at_most`.
    pub(crate) async fn looked_up(
        mut self,
        database: &Database,
        cart_id: &CartId,
        at_most: Duration,
    ) -> sqlx::Result<()> {
        let deadline = Instant::now() + at_most;
        let payload = payment_links::reconciliation::notification(cart_id.as_str());
        while Instant::now() < deadline {
            let look_at = deadline.min(Instant::now() + self.look_every);
            if tokio::time::timeout_at(look_at, self.wait_for_notification(&payload)).await.is_ok()
                || !payment_links::is_processing(&mut database.acquire().await?, cart_id.as_str()).await?
            {
                break;
            }
        }
        Ok(())
    }

    /// Like [`LinkWait::settled`]; `latest` reads the newest request.
    async fn poll<E, F: Future<Output = Result<Option<PaymentLink>, E>>>(
        mut self,
        asked: PaymentLink,
        at_most: Duration,
        latest: impl Fn() -> F,
    ) -> Result<Option<PaymentLink>, E> {
        let deadline = Instant::now() + at_most;
        let cart_id = asked.cart_id.clone();
        let mut newest = Some(asked);
        while newest.as_ref().is_some_and(|link| link.status == LinkStatus::Pending) && Instant::now() < deadline {
            let look_at = deadline.min(Instant::now() + self.look_every);
            let _ = tokio::time::timeout_at(look_at, self.wait_for_notification(&cart_id)).await;
            newest = latest().await?;
        }
        Ok(newest)
    }

    async fn wait_for_notification(&mut self, payload: &str) {
        loop {
            match self.news.recv().await {
                Ok(notified) if notified == payload => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use chrono::DateTime;
    use tokio::time::timeout;

    use super::*;

    /// No test takes as long, so what happens earlier is not due to it.
    const HOUR: Duration = Duration::from_secs(3_600);
    const DEADLINE: Duration = Duration::from_secs(60);

    fn link(status: LinkStatus) -> PaymentLink {
        PaymentLink {
            cart_id: "cart_1".to_owned(),
            version: 1,
            status,
            job_id: uuid::Uuid::nil(),
            session_expires_at: DateTime::UNIX_EPOCH,
            replacements: 0,
            attempted_at: None,
            session_id: None,
            url: None,
            failure: None,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    /// The sender of notifications, of which four are buffered, and a wait for them.
    fn begin(look_every: Duration) -> (broadcast::Sender<String>, LinkWait) {
        let (sender, news) = broadcast::channel(4);
        (sender, LinkWait { news, look_every })
    }

    /// Waits until the link is open, as the query with the number `opened` finds it. Returns the
    /// number of queries.
    async fn queries(wait: LinkWait, opened: u32) -> u32 {
        let queries = Cell::new(0);
        let latest = || async {
            queries.set(queries.get() + 1);
            Ok::<_, sqlx::Error>(Some(link(if queries.get() >= opened {
                LinkStatus::Open
            } else {
                LinkStatus::Pending
            })))
        };
        let settled = timeout(DEADLINE, wait.poll(link(LinkStatus::Pending), HOUR, latest)).await;
        let settled = settled.expect("it should end").expect("no error").expect("a link");
        assert_eq!(settled.status, LinkStatus::Open);
        queries.get()
    }

    fn notify(sender: &broadcast::Sender<String>, carts: &[&str]) {
        for cart in carts {
            sender.send((*cart).to_owned()).expect("somebody listens");
        }
    }

    #[tokio::test]
    async fn a_notification_before_the_wait_is_not_lost() {
        let (sender, wait) = begin(HOUR);
        notify(&sender, &["cart_2", "cart_1"]);
        assert_eq!(queries(wait, 1).await, 1);
    }

    #[tokio::test]
    async fn only_notifications_of_the_cart_cause_queries() {
        let (sender, wait) = begin(HOUR);
        notify(&sender, &["cart_1", "cart_2", "cart_3", "cart_1"]);
        assert_eq!(queries(wait, 2).await, 2);
    }

    #[tokio::test]
    async fn lost_notifications_cause_a_query() {
        let (sender, wait) = begin(HOUR);
        notify(&sender, &["cart_1", "cart_2", "cart_3", "cart_4", "cart_5"]);
        assert_eq!(queries(wait, 1).await, 1, "the notification of cart_1 was dropped");
        // None comes, or none can come any more: polling finds the link.
        let (_sender, wait) = begin(Duration::from_millis(1));
        assert_eq!(queries(wait, 3).await, 3);
        let (sender, wait) = begin(Duration::from_millis(1));
        drop(sender);
        assert_eq!(queries(wait, 3).await, 3);
    }

    #[tokio::test]
    async fn a_dropped_wait_leaves_the_others_notified() {
        let (sender, wait) = begin(HOUR);
        let other = LinkWait { news: sender.subscribe(), look_every: HOUR };
        timeout(Duration::from_millis(1), queries(other, 1)).await.expect_err("no notification has come");
        assert_eq!(sender.receiver_count(), 1);
        notify(&sender, &["cart_1"]);
        assert_eq!(queries(wait, 1).await, 1);
    }

    #[tokio::test]
    async fn an_unavailable_database_ends_the_wait() {
        let (_sender, wait) = begin(Duration::from_millis(1));
        let failing = || std::future::ready(Err(sqlx::Error::PoolTimedOut));
        let ended = timeout(DEADLINE, wait.poll(link(LinkStatus::Pending), HOUR, failing)).await;
        assert!(matches!(ended, Ok(Err(sqlx::Error::PoolTimedOut))));
    }

    #[tokio::test]
    async fn the_wait_ends_with_its_time_or_with_the_request() {
        let (sender, _) = begin(HOUR);
        let begin = || LinkWait { news: sender.subscribe(), look_every: HOUR };
        let pending = || std::future::ready(Ok::<_, sqlx::Error>(Some(link(LinkStatus::Pending))));
        let at_most = Duration::from_millis(20);
        let begun = Instant::now();
        let newest = timeout(DEADLINE, begin().poll(link(LinkStatus::Pending), at_most, pending)).await;
        assert!(newest.is_ok_and(|newest| newest.is_ok_and(|newest| newest.is_some())));
        assert!(begun.elapsed() >= at_most);
        // Deleted with its cart.
        let wait = begin();
        notify(&sender, &["cart_1"]);
        let newest = timeout(
            DEADLINE,
            wait.poll(link(LinkStatus::Pending), HOUR, || std::future::ready(Ok::<_, sqlx::Error>(None))),
        )
        .await;
        assert!(newest.is_ok_and(|newest| newest.is_ok_and(|newest| newest.is_none())));
        // Settled before the wait: no query.
        let never = || -> std::future::Pending<sqlx::Result<_>> { panic!("there is nothing to wait for") };
        let newest = begin().poll(link(LinkStatus::Open), HOUR, never).await;
        assert!(newest.is_ok_and(|newest| newest.is_some()));
    }
}
