//! The part of the devtools protocol that these tests need: calls and events as JSON over one
//! socket (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! The existing crates distinguish calls from events by untagged enums of serde, which fail with
//! `arbitrary_precision`, and money needs that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

/// The timeout of a call; only a hanging Chromium takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
const BACKLOG: usize = 10_000;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// An event in the tab of a session.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) session: String,
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// A connection to a Chromium; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Devtools {
    calls: mpsc::UnboundedSender<Message>,
    waiting: Waiting,
    events: broadcast::Sender<Arc<Event>>,
    next: Arc<AtomicU64>,
}

impl Devtools {
    pub(crate) async fn connect(url: &str) -> Self {
        // Screenshots are large.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) =
            tokio_tungstenite::connect_async_with_config(url, Some(config), true).await.expect("Chromium takes us");
        let (mut to, mut from) = socket.split();
        let (calls, mut outgoing) = mpsc::unbounded_channel();
        let (events, waiting) = (broadcast::channel(BACKLOG).0, Waiting::default());
        tokio::spawn(async move {
            while let Some(call) = outgoing.recv().await {
                if to.send(call).await.is_err() {
                    return;
                }
            }
        });
        let devtools = Self { calls, waiting, events, next: Arc::default() };
        let told = devtools.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = from.next().await {
                if let Some(message) = message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()) {
                    told.take(message);
                }
            }
        });
        devtools
    }

    fn take(&self, mut message: Value) {
        if let Some(id) = message["id"].as_u64() {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            if let Some(waiting) = waiting {
                let _ = waiting.send(message);
            }
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (session, method) = (text(&message["sessionId"]), text(&message["method"]));
        let _ = self.events.send(Arc::new(Event { session, method, params: message["params"].take() }));
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// Calls a method of a session's tab, or of the browser if `session` is empty.
    pub(crate) async fn call(&self, session: &str, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (answered, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answered);
        let mut call = json!({ "id": id, "method": method, "params": params });
        if !session.is_empty() {
            call["sessionId"] = json!(session);
        }
        let gone = || format!("{method}: Chromium is gone");
        self.calls.send(Message::text(call.to_string())).map_err(|_| gone())?;
        let answer = tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| format!("{method}: no answer"))?;
        let mut answer = answer.map_err(|_| gone())?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].take()),
        }
    }
}
