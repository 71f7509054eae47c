//! Keeps the database's API keys and signed-out sessions in memory, so that no request
//! queries Postgres for them.
//!
//! They are reloaded after a NOTIFY, and every two seconds in case a notification is lost (or
//! LISTEN is off): a revoked key or a signed-out session is refused everywhere within five seconds.
//! While Postgres is unavailable, the last state stays in use.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    api_keys::{
        self, KeyHash, LiveKey, Scopes,
        ended_sessions::{self, SessionHash},
    },
    clock::Clock,
    db::Database,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::http::error::ApiError;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Timeout of a reload; the connection may be dead.
const LOOK_FOR: Duration = Duration::from_secs(3);
/// Minimum interval between recorded uses of a key.
const NOTE_EVERY_SECONDS: i64 = 60;

/// The last state read from the database; `None` before the first read.
type Known = Option<Snapshot>;

#[derive(Debug, Clone)]
struct Snapshot {
    /// Keys that are not revoked.
    keys: Arc<[Kept]>,
    /// Signed-out sessions, each with the time at which it would expire.
    ended: Arc<HashMap<SessionHash, DateTime<Utc>>>,
}

/// A live key, and when this process last saw it used.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    key: LiveKey,
    /// Last use in Unix seconds; updated at most once a minute.
    used: Arc<AtomicI64>,
}

#[derive(Debug)]
pub(crate) struct KeyStore {
    sender: Arc<watch::Sender<Known>>,
    known: watch::Receiver<Known>,
    clock: Clock,
}

impl KeyStore {
    /// Starts a task that reloads the keys until the store is dropped. `changes` triggers a reload
    /// at once.
    pub(crate) fn start(database: Database, clock: Clock, changes: watch::Receiver<()>) -> Self {
        let (sender, known) = watch::channel(None);
        let sender = Arc::new(sender);
        let (of_task, now) = (sender.clone(), clock.clone());
        tokio::spawn(
            Looking { database, clock: now, sender: of_task, changes, written: HashMap::new(), well: true }.run(),
        );
        Self { sender, known, clock }
    }

    /// Waits until the database was read for the first time.
    ///
    /// # Errors
    /// 503 if the first read takes more than 3 s.
    pub(crate) async fn loaded(&self) -> Result<(), ApiError> {
        if self.known.borrow().is_none() {
            let mut known = self.known.clone();
            let told = timeout(LOOK_FOR, known.wait_for(Option::is_some)).await;
            told.map_err(|_| ApiError::unavailable("the keys of the database are not known yet"))?
                .map_err(ApiError::internal)?;
        }
        Ok(())
    }

    pub(crate) fn is_signed_out(&self, session: &SessionHash) -> bool {
        self.known.borrow().as_ref().is_some_and(|known| known.ended.contains_key(session))
    }

    /// Ends the session in this process; the caller stores that in the database.
    pub(crate) fn sign_out(&self, session: SessionHash, ends_at: DateTime<Utc>) {
        self.sender.send_modify(|known| {
            if let Some(known) = known {
                Arc::make_mut(&mut known.ended).insert(session, ends_at);
            }
        });
    }

    /// Looks up a valid key by its hash; returns its id and scopes.
    ///
    /// # Errors
    /// 503 if the keys were never loaded.
    pub(crate) async fn find(&self, given: &KeyHash) -> Result<Option<(Uuid, Scopes)>, ApiError> {
        self.loaded().await?;
        let known = self.known.borrow();
        let mut found = None;
        for kept in known.iter().flat_map(|known| known.keys.iter()) {
            if bool::from(kept.key.hash.fits(given)) {
                found = Some(kept);
            }
        }
        let now = self.clock.now();
        Ok(found.filter(|kept| kept.lives(now)).map(|kept| {
            kept.note_use(now);
            (kept.key.id, kept.key.scopes)
        }))
    }

    /// The key, if it is valid now.
    pub(crate) fn get(&self, id: Uuid) -> Option<LiveKey> {
        let known = self.known.borrow();
        let kept = known.iter().flat_map(|known| known.keys.iter()).find(|kept| kept.key.id == id)?;
        let now = self.clock.now();
        kept.lives(now).then(|| {
            kept.note_use(now);
            kept.key.clone()
        })
    }

    /// Resolves once `condition` is true.
    pub(crate) async fn wait_until(&self, condition: impl Fn() -> bool) {
        let mut known = self.known.clone();
        while !condition() {
            // No notification is sent when a key expires, so check from time to time.
            let _ = timeout(LOOK_EVERY, known.changed()).await;
        }
    }
}

impl Kept {
    fn lives(&self, now: DateTime<Utc>) -> bool {
        self.key.expires_at.is_none_or(|at| at > now)
    }

    fn note_use(&self, now: DateTime<Utc>) {
        let now = now.timestamp();
        if now - self.used.load(Ordering::Relaxed) >= NOTE_EVERY_SECONDS {
            self.used.store(now, Ordering::Relaxed);
        }
    }
}

/// The task that reloads keys and sessions from the database.
struct Looking {
    database: Database,
    clock: Clock,
    sender: Arc<watch::Sender<Known>>,
    changes: watch::Receiver<()>,
    /// Uses already written to the database, in Unix seconds.
    written: HashMap<Uuid, i64>,
    well: bool,
}

impl Looking {
    async fn run(mut self) {
        while !self.sender.is_closed() && !self.database.is_closed() {
            self.changes.mark_unchanged();
            let looked = match timeout(LOOK_FOR, self.look()).await {
                Ok(looked) => looked.map_err(|error| error.to_string()),
                Err(_) => Err(format!("Postgres did not answer within {LOOK_FOR:?}")),
            };
            let was_well = std::mem::replace(&mut self.well, looked.is_ok());
            match looked {
                Err(error) if was_well => {
                    tracing::warn!(error, "can't look at the API keys, trying again; those known stay good");
                }
                Ok(()) if !was_well => tracing::info!("looking at the API keys again"),
                _ => {}
            }
            tokio::select! {
                Ok(()) = self.changes.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&mut self) -> sqlx::Result<()> {
        let mut conn = self.database.acquire().await?;
        let live = api_keys::live(&mut conn).await?;
        let ended = ended_sessions::all(&mut conn).await?;
        self.publish(live, ended);
        let uses = self.new_uses();
        if !uses.is_empty() {
            api_keys::note_uses(&mut conn, &uses).await?;
            self.written.extend(uses.iter().map(|(id, at)| (*id, at.timestamp())));
        }
        conn.commit().await
    }

    /// Publishes what was read; notifies waiting tasks only if something changed.
    fn publish(&self, live: Vec<LiveKey>, mut ended: HashMap<SessionHash, DateTime<Utc>>) {
        let now = self.clock.now();
        self.sender.send_if_modified(|known| {
            // A session that was signed out here during the query may be missing from its result.
            ended.extend(known.iter().flat_map(|known| known.ended.iter().map(|(session, at)| (*session, *at))));
            ended.retain(|_, ends_at| *ends_at > now);
            let before: &[Kept] = known.as_ref().map_or(&[], |known| &known.keys);
            let same_keys = before.iter().map(|kept| &kept.key).eq(&live);
            if known.as_ref().is_some_and(|known| same_keys && *known.ended == ended) {
                return false;
            }
            let used = |key: &LiveKey| {
                let same = before.iter().find(|kept| kept.key.id == key.id);
                same.map_or_else(Arc::default, |kept| kept.used.clone())
            };
            let keys = live.into_iter().map(|key| Kept { used: used(&key), key }).collect();
            *known = Some(Snapshot { keys, ended: Arc::new(ended) });
            true
        });
    }

    fn new_uses(&self) -> Vec<(Uuid, DateTime<Utc>)> {
        let known = self.sender.borrow();
        let uses = known.iter().flat_map(|known| known.keys.iter()).filter_map(|kept| {
            let used = kept.used.load(Ordering::Relaxed);
            let new = used > self.written.get(&kept.key.id).copied().unwrap_or_default();
            new.then(|| Some((kept.key.id, DateTime::from_timestamp(used, 0)?))).flatten()
        });
        uses.collect()
    }
}
