//! A stand-in for Stripe, because nothing here reaches the real one: Checkout
//! Sessions with Stripe's bounds and idempotency, a page on which one can pay,
//! signed webhooks, and faults on demand.
//!
//! It is strict where Stripe is: a parameter it does not know is refused.

mod api;
mod events;
mod faults;
mod foreign;
mod mail;
mod page;
mod sessions;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use common::clock::Clock;
use tokio::{net::TcpListener, task::JoinHandle};

pub use events::{Delivery, sign};
pub use faults::{Fault, Operation};
pub use foreign::Foreign;
pub use mail::MailCounts;
pub use sessions::{PaymentStatus, Session, SessionStatus};

use sessions::Sessions;

/// How a stand-in is set up.
#[derive(Debug, Clone)]
pub struct StandInConfig {
    /// Where it listens.
    pub bind_addr: SocketAddr,
    /// Where it sends its events; `None`: nowhere.
    pub webhook_url: Option<String>,
    /// With what it signs them.
    pub webhook_secret: String,
    /// Where it keeps its sessions over restarts.
    pub file: Option<PathBuf>,
    /// Its time.
    pub clock: Clock,
}

/// A running stand-in; clones are the same. It ends with the tokio runtime.
#[derive(Debug, Clone)]
pub struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Arc<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    config: StandInConfig,
    sessions: Mutex<Sessions>,
    faults: faults::Faults,
    webhook_url: Mutex<Option<String>>,
    traffic: Arc<events::Traffic>,
    /// Where events wait if their way is unreliable.
    mail: OnceLock<mail::Mail>,
    http: reqwest::Client,
}

impl StandIn {
    /// Starts serving.
    ///
    /// # Errors
    /// If the address is taken or the file can't be read.
    pub async fn start(config: StandInConfig) -> Result<Self> {
        crate::choose_cryptography();
        let listener = TcpListener::bind(config.bind_addr)
            .await
            .with_context(|| format!("the stand-in for Stripe can't listen on {}", config.bind_addr))?;
        let address = listener.local_addr()?;
        let sessions = Sessions::load(config.file.as_deref())?;
        let shared = Arc::new(Shared {
            address,
            webhook_url: Mutex::new(config.webhook_url.clone()),
            traffic: Arc::default(),
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
                        tracing::error!(%error, "the stand-in for Stripe ended");
                    }
                },
                expire_when_due(&ticking),
            );
        });
        Ok(Self { shared, address, server: Arc::new(server) })
    }

    /// Where its API is, for `STRIPE_API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends its events there from now on.
    pub fn send_webhooks_to(&self, url: Option<String>) {
        *lock(&self.shared.webhook_url) = url;
    }

    /// The next call of this kind meets this fault; several stand in line.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.shared.faults.push(operation, fault);
    }

    /// Releases an answer that [`Fault::Held`] holds, or the next one that it will hold.
    pub fn let_go(&self) {
        self.shared.faults.let_go.notify_one();
    }

    /// Ends sessions that are due now, instead of within a second, and sends their events.
    pub async fn expire_due(&self) {
        expire_due(&self.shared).await;
    }

    /// How many events there were in all; `None` while one is in transit. (Events sent by [`StandIn::mail`] are
    /// counted there.)
    pub fn all_delivered(&self) -> Option<usize> {
        self.shared.traffic.all_ended()
    }

    /// How many faults still stand in line for calls of this kind.
    pub fn faults_ahead(&self, operation: Operation) -> usize {
        self.shared.faults.ahead(operation)
    }

    /// From now on events take their time, overtake each other, come twice and
    /// get lost on the way, and are sent again until they are taken. Whoever
    /// pays does not wait for them.
    pub fn deliver_unreliably(&self, seed: u64) {
        mail::open(&self.shared, seed);
    }

    /// How the unreliable way went so far.
    pub fn mail(&self) -> MailCounts {
        self.shared.mail.get().map(mail::Mail::counts).unwrap_or_default()
    }

    /// Carts (`client_reference_id`) that ever had two sessions open in the same moment.
    pub fn carts_with_two_open_sessions(&self) -> Vec<String> {
        lock(&self.shared.sessions).overlapping()
    }

    /// Every session it ever made, oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        lock(&self.shared.sessions).all()
    }

    /// Adds sessions of other tools on the account, all made at `created`.
    pub fn add_foreign_sessions(&self, count: usize, created: DateTime<Utc>) {
        let mut sessions = lock(&self.shared.sessions);
        for _ in 0..count {
            sessions.add(Session { created, ..foreign::session(created) });
        }
    }

    /// How many calls of this kind reached it.
    pub fn calls(&self, operation: Operation) -> usize {
        self.shared.faults.calls(operation)
    }

    /// A shopper pays with a card; the answer is how the events were taken.
    ///
    /// # Errors
    /// If the session is not open.
    pub async fn pay(&self, session_id: &str) -> Result<Vec<Delivery>> {
        self.shared.pay(session_id).await
    }

    /// A shopper pays by bank debit, whose money takes days.
    ///
    /// # Errors
    /// If the session is not open.
    pub async fn pay_later(&self, session_id: &str) -> Result<Vec<Delivery>> {
        self.shared.pay_later(session_id).await
    }

    /// The days have passed: the money is there, or will never be.
    ///
    /// # Errors
    /// If no money of this session is under way.
    pub async fn money_arrives(&self, session_id: &str, arrives: bool) -> Result<Vec<Delivery>> {
        self.shared.money_arrives(session_id, arrives).await
    }

    /// Stops serving: connections are refused from now on.
    pub fn stop(&self) {
        self.server.abort();
    }
}

/// Ends sessions whose time is over, as Stripe does by itself.
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
            tracing::error!(%error, "the stand-in for Stripe can't keep its sessions");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
