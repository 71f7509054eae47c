//! A fake Stripe: Checkout Sessions with Stripe's limits and idempotency, a payment page, refunds and
//! disputes, signed webhooks, and faults on demand. A key for live mode creates live sessions.
//!
//! Like Stripe it refuses unknown parameters.

mod api;
mod charges;
mod currencies;
mod event_list;
mod events;
mod faults;
mod foreign;
mod form;
mod gate;
mod lists;
mod mail;
mod new_session;
mod options;
mod page;
mod payments;
mod refusal;
mod reversals;
mod sessions;
mod totals;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use common::{clock::Clock, mutex::lock};
use tokio::{net::TcpListener, task::JoinHandle};

pub use events::{Delivery, sign};
pub use faults::{Fault, KeyState, Operation};
pub use foreign::Foreign;
pub use mail::MailCounts;
pub use options::SessionOptions;
pub use reversals::{Charge, Dispute, Refund};
pub use sessions::{PaymentStatus, Session, SessionStatus};

use sessions::Sessions;

/// The configuration of a fake Stripe.
#[derive(Debug, Clone)]
pub struct FakeStripeConfig {
    /// The address to listen on.
    pub bind_addr: SocketAddr,
    /// Where browsers reach the payment pages; `None`: at `bind_addr`.
    pub public_url: Option<String>,
    /// The URL to send events to; `None`: events are not sent.
    pub webhook_url: Option<String>,
    /// The secret that signs events.
    pub webhook_secret: String,
    /// The file that keeps the sessions across restarts; `None`: they are kept in memory.
    pub file: Option<PathBuf>,
    /// The source of the current time.
    pub clock: Clock,
}

/// A running fake Stripe. Clones share the server, which ends with the tokio runtime.
#[derive(Debug, Clone)]
pub struct FakeStripe {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Arc<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    config: FakeStripeConfig,
    sessions: Mutex<Sessions>,
    faults: faults::Faults,
    webhook_url: Mutex<Option<String>>,
    traffic: Arc<events::Traffic>,
    events: event_list::EventList,
    /// The queue of events, if delivery is unreliable.
    mail: OnceLock<mail::Mail>,
    http: reqwest::Client,
}

impl FakeStripe {
    /// Starts the server.
    ///
    /// # Errors
    /// If the address is in use or the file can't be read.
    pub async fn start(config: FakeStripeConfig) -> Result<Self> {
        crate::choose_cryptography();
        let listener = TcpListener::bind(config.bind_addr)
            .await
            .with_context(|| format!("the fake Stripe can't listen on {}", config.bind_addr))?;
        let address = listener.local_addr()?;
        let sessions = Sessions::load(config.file.as_deref())?;
        let shared = Arc::new(Shared {
            address,
            webhook_url: Mutex::new(config.webhook_url.clone()),
            traffic: Arc::default(),
            events: event_list::EventList::default(),
            mail: OnceLock::new(),
            config,
            sessions: Mutex::new(sessions),
            faults: faults::Faults::default(),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
        });
        let router = api::router(shared.clone()).merge(page::router(shared.clone()));
        let ticking = shared.clone();
        let server = tokio::spawn(async move {
            tokio::join!(
                async {
                    if let Err(error) = axum::serve(listener, router).await {
                        tracing::error!(%error, "the fake Stripe ended");
                    }
                },
                expire_when_due(&ticking),
            );
        });
        Ok(Self { shared, address, server: Arc::new(server) })
    }

    /// The base URL of the API, for `STRIPE_API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends events to this URL from now on; `None` stops sending.
    pub fn send_webhooks_to(&self, url: Option<String>) {
        *lock(&self.shared.webhook_url) = url;
    }

    /// Adds a fault for a future call of this operation. Each call takes one fault, in order.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.shared.faults.push(operation, fault);
    }

    /// Whether the events of this session's payment are lost ([`Fault::Lost`]).
    pub fn loses_events_of(&self, session_id: &str) -> bool {
        self.shared.faults.loses(session_id)
    }

    /// Accepts or refuses the account's key from now on.
    pub fn set_key(&self, state: KeyState) {
        *lock(&self.shared.faults.key) = state;
    }

    /// Releases the response that [`Fault::Held`] holds, or the next one that it will hold.
    pub fn let_go(&self) {
        self.shared.faults.let_go.notify_one();
    }

    /// Expires sessions that are due now, instead of within a second, and sends their events.
    pub async fn expire_due(&self) {
        expire_due(&self.shared).await;
    }

    /// The number of events so far; `None` while one is in transit. Events delivered unreliably are
    /// counted by [`FakeStripe::mail`].
    pub fn all_delivered(&self) -> Option<usize> {
        self.shared.traffic.all_ended()
    }

    /// The number of faults left for this operation.
    pub fn faults_ahead(&self, operation: Operation) -> usize {
        self.shared.faults.ahead(operation)
    }

    /// Delivers events unreliably from now on: late, out of order, repeated, and retried until they
    /// are accepted. Payments don't wait for their events. `seed` seeds the random choices.
    pub fn deliver_unreliably(&self, seed: u64) {
        mail::open(&self.shared, seed);
    }

    /// Statistics of the unreliable delivery so far.
    pub fn mail(&self) -> MailCounts {
        self.shared.mail.get().map(mail::Mail::counts).unwrap_or_default()
    }

    /// Carts (`client_reference_id`) that had two sessions open at the same time.
    pub fn carts_with_two_open_sessions(&self) -> Vec<String> {
        lock(&self.shared.sessions).overlapping()
    }

    /// All sessions created so far, oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        lock(&self.shared.sessions).all()
    }

    /// The sessions that can be paid.
    pub fn open_sessions(&self) -> Vec<Session> {
        self.sessions().into_iter().filter(|session| session.status == SessionStatus::Open).collect()
    }

    /// Adds sessions of other tools on the account, created at `created`.
    pub fn add_foreign_sessions(&self, count: usize, created: DateTime<Utc>) {
        let mut sessions = lock(&self.shared.sessions);
        for _ in 0..count {
            sessions.add(Session { created, ..foreign::session(created) });
        }
    }

    /// The number of calls of this operation.
    pub fn calls(&self, operation: Operation) -> usize {
        self.shared.faults.calls(operation)
    }

    /// Pays with a card; returns the results of sending the events.
    ///
    /// # Errors
    /// If the session is not open.
    pub async fn pay(&self, session_id: &str) -> Result<Vec<Delivery>> {
        self.shared.pay(session_id).await
    }

    /// Pays by bank debit, which stays in progress until [`FakeStripe::money_arrives`].
    ///
    /// # Errors
    /// If the session is not open.
    pub async fn pay_later(&self, session_id: &str) -> Result<Vec<Delivery>> {
        self.shared.pay_later(session_id).await
    }

    /// Completes a payment by bank debit; it fails if `arrives` is `false`.
    ///
    /// # Errors
    /// If the session has no payment in progress.
    pub async fn money_arrives(&self, session_id: &str, arrives: bool) -> Result<Vec<Delivery>> {
        self.shared.money_arrives(session_id, arrives).await
    }

    /// Refunds `amount` of the payment in Stripe's smallest unit, or the rest if it is `None`.
    ///
    /// # Errors
    /// If the session is not paid or disputed, or the rest is smaller.
    pub async fn refund(&self, session_id: &str, amount: Option<i64>) -> Result<Vec<Delivery>> {
        self.shared.refund(session_id, amount).await
    }

    /// Lets the last refund fail.
    ///
    /// # Errors
    /// If there is none.
    pub async fn fail_refund(&self, session_id: &str) -> Result<Vec<Delivery>> {
        self.shared.fail_refund(session_id).await
    }

    /// Opens a dispute about `amount`, or the whole payment if it is `None`.
    ///
    /// # Errors
    /// If the session is not paid, or refunded.
    pub async fn dispute(&self, session_id: &str, amount: Option<i64>) -> Result<Vec<Delivery>> {
        self.shared.dispute(session_id, amount).await
    }

    /// Closes the last dispute. One that was lost can be won later, if the shopper withdraws it.
    ///
    /// # Errors
    /// If there is none, or it is won.
    pub async fn close_dispute(&self, session_id: &str, won: bool) -> Result<Vec<Delivery>> {
        self.shared.close_dispute(session_id, won).await
    }

    /// Stops the server; connections are refused from now on.
    pub fn stop(&self) {
        self.server.abort();
    }
}

/// Expires sessions when they are due, like Stripe.
async fn expire_when_due(shared: &Shared) {
    loop {
        expire_due(shared).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn expire_due(shared: &Shared) {
    let _on_its_way = shared.traffic.begin();
    let expired = lock(&shared.sessions).expire_due(shared.config.clock.now());
    for session in expired {
        shared.save();
        shared.send(&session, "checkout.session.expired").await;
    }
}

impl Shared {
    fn save(&self) {
        if let Err(error) = lock(&self.sessions).save(self.config.file.as_deref()) {
            tracing::error!(%error, "the fake Stripe can't keep its sessions");
        }
    }
}
