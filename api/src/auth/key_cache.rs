//! Keeps the database's API keys and signed-out sessions in memory, so that no request queries
//! Postgres for them, not even one with a guessed key or a forged cookie.
//!
//! They are reloaded every four seconds: a revoked key or a signed-out session is refused everywhere
//! within five seconds. A request with an unknown key waits for the next reload and starts it early,
//! so that a new key is valid at once. While Postgres is unavailable, the last state stays in use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    api_keys::{
        self, KeyHash, LiveKey,
        ended_sessions::{self, SessionHash},
    },
    clock::Clock,
    db::Database,
    mutex::lock,
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::http::error::ApiError;

const RELOAD_EVERY: Duration = Duration::from_secs(4);
/// Minimum interval between reloads, however many unknown keys are sent.
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout of a reload; the connection may be dead.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Minimum interval between recorded uses of a key.
const RECORD_EVERY: TimeDelta = TimeDelta::seconds(60);

/// The keys read from the database.
#[derive(Debug)]
struct Snapshot {
    /// Keys that are not revoked.
    keys: Vec<LiveKey>,
    /// Signed-out sessions, each with the time at which it would expire.
    ended: HashMap<SessionHash, DateTime<Utc>>,
}

impl Snapshot {
    /// The snapshot after a reload at `now`. Sessions that were signed out here during the
    /// query may be missing from its result, so the sessions known before stay until they expire.
    fn reloaded(
        before: Option<Self>,
        keys: Vec<LiveKey>,
        mut ended: HashMap<SessionHash, DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        ended.extend(before.into_iter().flat_map(|snapshot| snapshot.ended));
        ended.retain(|_, ends_at| *ends_at > now);
        Self { keys, ended }
    }
}

#[derive(Debug)]
pub(crate) struct KeyStore {
    clock: Clock,
    /// `None` before the first read.
    snapshot: watch::Sender<Option<Snapshot>>,
    /// When this process last saw each key used, to a minute.
    uses: Mutex<HashMap<Uuid, DateTime<Utc>>>,
    /// Starts a reload early.
    wanted: Arc<Notify>,
    reloads: watch::Sender<Reloads>,
}

/// Counts reloads, so that a request can wait for one that started after it.
#[derive(Debug, Default, Clone, Copy)]
struct Reloads {
    started: u64,
    /// How many had started when the last one ended, failed or not.
    ended: u64,
}

impl KeyStore {
    /// Starts a task that reloads the keys until the store is dropped.
    pub(crate) fn start(database: Database, clock: Clock) -> Arc<Self> {
        let wanted = Arc::<Notify>::default();
        let (snapshot, uses) = (watch::Sender::new(None), Mutex::default());
        let reloads = watch::Sender::default();
        let store = Arc::new(Self { clock, snapshot, uses, wanted: wanted.clone(), reloads });
        tokio::spawn(keep_loaded(Arc::downgrade(&store), database, wanted));
        store
    }

    /// Waits until the database was read for the first time.
    ///
    /// # Errors
    /// 503 if the first read takes more than 3 s.
    pub(crate) async fn loaded(&self) -> Result<(), ApiError> {
        let mut snapshot = self.snapshot.subscribe();
        let loaded = timeout(RELOAD_TIMEOUT, snapshot.wait_for(Option::is_some)).await;
        loaded
            .map_err(|_| ApiError::unavailable("the keys of the database are not known yet"))?
            .map_err(ApiError::internal)?;
        Ok(())
    }

    pub(crate) fn is_signed_out(&self, session: &SessionHash) -> bool {
        self.snapshot.borrow().as_ref().is_some_and(|snapshot| snapshot.ended.contains_key(session))
    }

    /// Ends the session in this process; the caller stores that in the database.
    pub(crate) fn sign_out(&self, session: SessionHash, ends_at: DateTime<Utc>) {
        self.snapshot.send_modify(|snapshot| {
            if let Some(snapshot) = snapshot {
                snapshot.ended.insert(session, ends_at);
            }
        });
    }

    /// Looks up a valid key by its hash. Compares with every key, so that the response time reveals
    /// nothing.
    ///
    /// # Errors
    /// 503 if the keys were never loaded.
    pub(crate) async fn find(&self, given: &KeyHash) -> Result<Option<LiveKey>, ApiError> {
        self.loaded().await?;
        let find = || self.last_key(|key| key.hash.fits(given).into());
        let found = find();
        if found.is_some() {
            return Ok(found);
        }
        // A reload in progress may have read the keys before this one was stored.
        let mut reloads = self.reloads.subscribe();
        let earlier = reloads.borrow_and_update().started;
        self.wanted.notify_one();
        let _ = timeout(RELOAD_TIMEOUT, reloads.wait_for(|reloads| reloads.ended > earlier)).await;
        Ok(find())
    }

    /// The key, if it is valid now.
    pub(crate) fn get(&self, id: Uuid) -> Option<LiveKey> {
        self.last_key(|key| key.id == id)
    }

    /// The last key that fits, if it is valid now. Records its use.
    fn last_key(&self, fits: impl Fn(&LiveKey) -> bool) -> Option<LiveKey> {
        let snapshot = self.snapshot.borrow();
        let keys = snapshot.iter().flat_map(|snapshot| &snapshot.keys);
        let found = keys.fold(None, |found, key| if fits(key) { Some(key) } else { found });
        let now = self.clock.now();
        let key = found.filter(|key| key.expires_at.is_none_or(|at| at > now))?;
        let mut uses = lock(&self.uses);
        let used = uses.entry(key.id).or_insert(now);
        if now - *used >= RECORD_EVERY {
            *used = now;
        }
        Some(key.clone())
    }

    /// Resolves once `condition` is true.
    pub(crate) async fn wait_until(&self, condition: impl Fn() -> bool) {
        let mut snapshot = self.snapshot.subscribe();
        while !condition() {
            // A key expires without a reload.
            let _ = timeout(RELOAD_EVERY, snapshot.changed()).await;
        }
    }

    /// Reads the database, and stores when keys were used. `recorded` is what is stored already.
    async fn reload(&self, database: &Database, recorded: &mut HashMap<Uuid, DateTime<Utc>>) -> sqlx::Result<()> {
        let mut conn = database.begin().await?;
        let keys = api_keys::live(&mut conn).await?;
        let ended = ended_sessions::all(&mut conn).await?;
        let now = self.clock.now();
        self.snapshot.send_modify(|snapshot| {
            *snapshot = Some(Snapshot::reloaded(snapshot.take(), keys, ended, now));
        });
        let uses = lock(&self.uses).clone();
        let new: Vec<_> = uses.into_iter().filter(|(id, at)| recorded.get(id) != Some(at)).collect();
        if !new.is_empty() {
            api_keys::note_uses(&mut conn, &new).await?;
            recorded.extend(new);
        }
        conn.commit().await
    }
}

/// Reloads the keys until the store is dropped.
async fn keep_loaded(store: Weak<KeyStore>, database: Database, wanted: Arc<Notify>) {
    let (mut recorded, mut failed) = (HashMap::new(), false);
    while let Some(store) = store.upgrade().filter(|_| !database.is_closed()) {
        store.reloads.send_modify(|reloads| reloads.started += 1);
        let loaded = match timeout(RELOAD_TIMEOUT, store.reload(&database, &mut recorded)).await {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no response from Postgres within {RELOAD_TIMEOUT:?}")),
        };
        store.reloads.send_modify(|reloads| reloads.ended = reloads.started);
        drop(store);
        match (&loaded, failed) {
            (Err(error), false) => {
                tracing::warn!(error, "can't load the API keys, trying again; the last ones loaded stay valid");
            }
            (Ok(()), true) => tracing::info!("the API keys are loaded again"),
            _ => {}
        }
        failed = loaded.is_err();
        sleep(PAUSE).await;
        let _ = timeout(RELOAD_EVERY, wanted.notified()).await;
    }
}

#[cfg(test)]
mod tests;
