//! Clients that continue through failures and record the acknowledged changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::mutex::lock;
use reqwest::RequestBuilder;
use sandbox::stripe::FakeStripe;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::a_cart;

/// The pause after a 503, shorter than `Retry-After`, because the tests measure the server.
const PAUSE: Duration = Duration::from_millis(50);

/// The acknowledged changes.
#[derive(Debug, Default)]
pub struct Promised {
    /// Carts created with 201.
    pub carts: BTreeSet<String>,
    /// The status of carts whose change was acknowledged with 200 and that no client changes again.
    pub statuses: BTreeMap<String, &'static str>,
    /// Carts whose payment was acknowledged with 200, for both of its events.
    pub paid: BTreeSet<String>,
    /// The number of payment links.
    pub links: usize,
    /// The number of 503 responses with `Retry-After`.
    pub put_off: usize,
    /// Unexpected responses.
    pub wrong: Vec<String>,
    /// The longest time without an acknowledged cart.
    pub longest_gap: Duration,
    last: Option<Instant>,
}

/// Clients of some apis; they end when this is dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    apis: Vec<String>,
    http: reqwest::Client,
    stripe: FakeStripe,
    promised: Mutex<Promised>,
    turn: AtomicUsize,
    stopping: AtomicBool,
}

impl Load {
    /// Starts this many clients of these apis, whose key is `key`.
    ///
    /// # Panics
    /// Never: a client can be built.
    pub fn start(apis: Vec<String>, stripe: FakeStripe, clients: usize) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().expect("a client");
        let shared = Arc::new(Shared {
            apis,
            http,
            stripe,
            promised: Mutex::default(),
            turn: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let shared = shared.clone();
            tasks.spawn(async move {
                while !shared.stopping.load(Ordering::Acquire) {
                    shared.clone().shop().await;
                }
            });
        }
        Self { shared, clients: tasks }
    }

    /// The number of acknowledged carts so far.
    pub fn carts(&self) -> usize {
        self.shared.promised().carts.len()
    }

    /// The number of acknowledged payments so far.
    pub fn paid(&self) -> usize {
        self.shared.promised().paid.len()
    }

    /// Waits until every client has finished its cart; returns the acknowledged changes.
    ///
    /// # Panics
    /// If a client panicked.
    pub async fn stop(mut self) -> Promised {
        self.shared.stopping.store(true, Ordering::Release);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut self.shared.promised())
    }
}

impl Shared {
    fn promised(&self) -> MutexGuard<'_, Promised> {
        lock(&self.promised)
    }

    /// One cart: a third are expired by hand, a third get a link, and a third get a link that is
    /// paid.
    async fn shop(self: Arc<Self>) {
        let turn = self.turn.fetch_add(1, Ordering::AcqRel);
        let api = &self.apis[turn % self.apis.len()];
        let carts = format!("{api}/api/carts");
        let Some(cart) = self.ask(self.http.post(&carts).json(&a_cart()), &[201]).await else { return };
        let id = cart["data"]["id"].as_str().unwrap_or_default().to_owned();
        {
            let mut promised = self.promised();
            let now = Instant::now();
            let gap = promised.last.replace(now).map_or(Duration::ZERO, |last| now - last);
            promised.longest_gap = promised.longest_gap.max(gap);
            promised.carts.insert(id.clone());
        }
        if turn.is_multiple_of(3) {
            let change = self.http.patch(format!("{carts}/{id}")).json(&json!({"status": "expired"}));
            if self.ask(change, &[200]).await.is_some() {
                self.promised().statuses.insert(id, "expired");
            }
            return;
        }
        let Some(link) = self.ask(self.http.post(format!("{carts}/{id}/payment-link")), &[200, 202]).await else {
            return;
        };
        let Some(page) = link["data"]["paymentLink"].as_str() else { return }; // 202: the link is made later
        self.promised().links += 1;
        if turn % 3 == 2 {
            return;
        }
        let session = page.rsplit('/').next().unwrap_or_default();
        match self.stripe.pay(session).await {
            Ok(events) if events.iter().all(|event| event.status == Some(200)) => {
                self.promised().paid.insert(id);
            }
            Ok(_) => {} // Stripe would retry for days
            Err(error) => self.promised().wrong.push(format!("the link of {id} can't be paid: {error}")),
        }
    }

    /// The response if its status is expected. Waits after a 503.
    async fn ask(&self, request: RequestBuilder, expected: &[u16]) -> Option<Value> {
        let answer = match request.header("x-api-key", "key").send().await {
            Ok(answer) => answer,
            Err(error) => {
                self.promised().wrong.push(format!("no answer: {error:?}"));
                return None;
            }
        };
        let (status, later) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap_or_default();
        if expected.contains(&status) {
            return Some(body);
        }
        if status == 503 && later && body["error"]["code"] == "UNAVAILABLE" {
            self.promised().put_off += 1;
            tokio::time::sleep(PAUSE).await;
        } else {
            self.promised().wrong.push(format!("{status} {body}"));
        }
        None
    }
}
