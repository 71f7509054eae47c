//! Reloads, and the requests that wait for them. The tests reload in place of the task, or the
//! database is unavailable.

use common::{api_keys::Scopes, audit::KeyName, db::Listen};
use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;

use super::*;

/// Longer than any wait here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn now() -> DateTime<Utc> {
    "2026-03-01T10:00:00Z".parse().expect("an instant")
}

/// A database whose connections fail at once.
fn unavailable() -> Database {
    Database::new(PgConnectOptions::new().socket("/nowhere"), Listen::Off, 1)
}

/// A loaded store without keys, and without a task that reloads it.
fn store() -> Arc<KeyStore> {
    let snapshot = watch::Sender::new(Some(Snapshot { keys: Vec::new(), ended: HashMap::new() }));
    let (uses, wanted, reloads) = (Mutex::default(), Arc::default(), watch::Sender::default());
    Arc::new(KeyStore { clock: Clock::stopped_at(now()), snapshot, uses, wanted, reloads })
}

fn hash() -> KeyHash {
    KeyHash::of(b"qct_1")
}

fn key(expires_at: Option<DateTime<Utc>>) -> LiveKey {
    LiveKey { id: Uuid::from_u128(1), name: KeyName::new("one"), hash: hash(), scopes: Scopes::all(), expires_at }
}

fn reload(store: &KeyStore, keys: Vec<LiveKey>) {
    store.reloads.send_modify(|reloads| reloads.started += 1);
    finish_reload(store, keys);
}

fn finish_reload(store: &KeyStore, keys: Vec<LiveKey>) {
    store.snapshot.send_modify(|snapshot| {
        *snapshot = Some(Snapshot::reloaded(snapshot.take(), keys, HashMap::new(), store.clock.now()));
    });
    store.reloads.send_modify(|reloads| reloads.ended = reloads.started);
}

/// Waits for the end of the next reload of the store's task.
async fn reloaded(reloads: &mut watch::Receiver<Reloads>) {
    let before = reloads.borrow_and_update().ended;
    before_deadline(reloads.wait_for(|reloads| reloads.ended > before)).await.expect("the store is there");
}

async fn before_deadline<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it should end")
}

#[tokio::test]
async fn an_unknown_key_starts_a_reload_and_is_found_after_it() {
    let store = store();
    let find = || {
        let store = store.clone();
        tokio::spawn(async move { store.find(&hash()).await.map_err(|_| "an error") })
    };
    let (waiting, dropped) = (find(), find());
    before_deadline(store.wanted.notified()).await;
    dropped.abort();
    before_deadline(dropped).await.expect_err("it was dropped while it waited");
    reload(&store, vec![key(None)]);
    assert_eq!(before_deadline(waiting).await.expect("no panic"), Ok(Some(key(None))));
}

#[tokio::test]
async fn a_reload_in_progress_does_not_answer_for_a_new_key() {
    let store = store();
    store.reloads.send_modify(|reloads| reloads.started += 1); // reads the keys, then the new one is stored
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.find(&hash()).await.map_err(|_| "an error") }
    });
    before_deadline(store.wanted.notified()).await;
    finish_reload(&store, Vec::new());
    tokio::task::yield_now().await;
    reload(&store, vec![key(None)]);
    assert_eq!(before_deadline(waiting).await.expect("no panic"), Ok(Some(key(None))));
}

#[tokio::test]
async fn the_last_keys_stay_valid_while_the_database_is_unavailable() {
    let store = KeyStore::start(unavailable(), Clock::stopped_at(now()));
    assert!(store.find(&hash()).await.is_err(), "no key is known yet");
    reload(&store, vec![key(None)]);
    let mut reloads = store.reloads.subscribe();
    reloaded(&mut reloads).await;
    assert!(store.find(&hash()).await.is_ok_and(|found| found.is_some()));
    assert!(store.find(&KeyHash::of(b"qct_2")).await.is_ok_and(|found| found.is_none()));
}

#[tokio::test]
async fn a_reload_that_is_wanted_during_the_pause_follows_it() {
    const RELOADS: u32 = 10;
    let store = KeyStore::start(unavailable(), Clock::stopped_at(now()));
    let mut reloads = store.reloads.subscribe();
    reloaded(&mut reloads).await;
    let begun = Instant::now();
    for _ in 0..RELOADS {
        // The task has begun its pause and does not wait for a notification yet.
        store.wanted.notify_one();
        store.wanted.notify_one();
        reloaded(&mut reloads).await;
    }
    let took = begun.elapsed();
    assert!((PAUSE * (RELOADS - 1)..RELOAD_EVERY * (RELOADS - 1)).contains(&took), "{took:?}");
}

#[test]
fn a_session_that_was_signed_out_during_a_reload_stays_signed_out() {
    let store = store();
    let [here, elsewhere] = ["here", "elsewhere"].map(SessionHash::of);
    store.sign_out(here, now() + TimeDelta::hours(1));
    store.snapshot.send_modify(|snapshot| {
        let read = HashMap::from([(elsewhere, now() + TimeDelta::hours(2))]);
        *snapshot = Some(Snapshot::reloaded(snapshot.take(), Vec::new(), read, now()));
    });
    assert!(store.is_signed_out(&here) && store.is_signed_out(&elsewhere));
    store.clock.advance(TimeDelta::hours(1));
    reload(&store, Vec::new());
    assert!(!store.is_signed_out(&here) && store.is_signed_out(&elsewhere), "only one has expired");
}

#[tokio::test]
async fn a_key_ends_when_it_expires_or_is_revoked() {
    let store = store();
    let expires_at = now() + TimeDelta::hours(1);
    reload(&store, vec![key(Some(expires_at))]);
    let has_ended = || store.get(key(None).id).is_none();
    let ((), ()) =
        before_deadline(async { tokio::join!(store.wait_until(has_ended), async { reload(&store, Vec::new()) }) })
            .await;
    reload(&store, vec![key(Some(expires_at))]);
    let expire = async { store.clock.advance(TimeDelta::hours(1)) };
    let ((), ()) = before_deadline(async { tokio::join!(store.wait_until(has_ended), expire) }).await;
}

#[tokio::test]
async fn the_task_ends_with_the_store() {
    let store = store();
    let wanted = store.wanted.clone();
    let task = tokio::spawn(keep_loaded(Arc::downgrade(&store), unavailable(), wanted.clone()));
    let mut reloads = store.reloads.subscribe();
    reloaded(&mut reloads).await;
    drop(store);
    wanted.notify_one();
    before_deadline(task).await.expect("no panic");
}
