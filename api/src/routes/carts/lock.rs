//! Locks one cart for a change. Requests that change the same cart are served in
//! order, and a cart that another transaction has locked delays only them.
//!
//! A waiting request holds no connection: it queues behind the other requests of
//! this process, then tries to lock the cart again and again, with growing pauses.
//! The connections stay available to requests for other carts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    batch::Batcher,
    carts::{self, CartId, LockedCart, TryLock},
    db::{Connection, Database},
    mutex,
    stripe_events::{Effect, StripeEvent},
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep, timeout_at},
};

use crate::{http::error::ApiError, routes::webhooks::batch::ApplyEvents};

/// The longest wait for a cart. After that the request fails without a change, and the client may
/// repeat it.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// The pause after the first attempt to lock; it doubles after each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

type CartMutex = Arc<tokio::sync::Mutex<()>>;

/// One mutex for each id that requests of this process are changing: the id of a cart, or of an
/// event's object if the event names no cart.
#[derive(Debug, Clone, Default)]
pub(crate) struct CartLocks(Arc<Mutex<HashMap<String, CartMutex>>>);

impl CartLocks {
    /// Waits for earlier requests for the id, in their order.
    ///
    /// # Errors
    /// 503 if the deadline passes first.
    async fn acquire(&self, id: &str, deadline: Instant) -> Result<Permit, ApiError> {
        let mutex = mutex::lock(&self.0).entry(id.to_owned()).or_default().clone();
        let mut permit = Permit { locks: self.clone(), id: id.to_owned(), mutex, held: None };
        let held = timeout_at(deadline, permit.mutex.clone().lock_owned()).await;
        permit.held = Some(held.map_err(|_| ApiError::locked())?);
        Ok(permit)
    }
}

/// A request's permit to change a cart; its place in the queue until `held` is set. Released when
/// dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    locks: CartLocks,
    id: String,
    mutex: CartMutex,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut mutexes = mutex::lock(&self.locks.0);
        // Only the map and this permit refer to the mutex: no other request waits.
        if Arc::strong_count(&self.mutex) == 2 {
            mutexes.remove(&self.id);
        }
    }
}

/// A transaction that holds the lock of a cart.
pub(crate) struct Locked {
    pub(crate) tx: Connection,
    pub(crate) cart: LockedCart,
    /// Must be dropped after the transaction has ended: bind it first.
    pub(crate) permit: Permit,
}

/// Locks the cart.
///
/// # Errors
/// 404 if there is no such cart, 503 if its lock is not free in time.
pub(crate) async fn lock(locks: &CartLocks, lookups: &Database, id: &CartId) -> Result<Locked, ApiError> {
    let mut backoff = Backoff::new();
    let permit = locks.acquire(id.as_str(), backoff.deadline).await?;
    loop {
        let mut tx = lookups.begin().await?;
        match carts::try_lock(&mut tx, id).await? {
            TryLock::Locked(cart) => return Ok(Locked { tx, cart, permit }),
            TryLock::Missing => return Err(ApiError::cart_not_found()),
            TryLock::Held => tx.rollback().await?,
        }
        backoff.pause().await?;
    }
}

/// Does `attempt` again and again until the locks that it needs are free: until its error is not
/// [`ApiError::locked`]. Requests with the same key are served in order.
///
/// # Errors
/// 503 if the locks are not free in time, and the errors of `attempt`.
pub(crate) async fn in_turn<T, F: Future<Output = Result<T, ApiError>>>(
    locks: &CartLocks,
    key: Option<&str>,
    attempt: impl Fn() -> F,
) -> Result<T, ApiError> {
    let mut backoff = Backoff::new();
    let _permit = match key {
        Some(key) => Some(locks.acquire(key, backoff.deadline).await?),
        None => None,
    };
    loop {
        match attempt().await {
            Err(error) if error.is_locked() => backoff.pause().await?,
            done => return done,
        }
    }
}

/// Does `attempt`, which writes the external id in a transaction with [`limit_wait`], until no other
/// transaction holds the id. Requests with the same id are served in order.
///
/// # Errors
/// 503 if the id is not free in time, and the errors of `attempt`.
pub(crate) async fn with_external_id<T, F: Future<Output = Result<T, ApiError>>>(
    locks: &CartLocks,
    external_id: &str,
    attempt: impl Fn() -> F,
) -> Result<T, ApiError> {
    in_turn(locks, Some(&format!("external id {external_id}")), attempt).await
}

/// Lets the transaction wait for locks for a moment only, so that it does not keep its connection
/// from other requests.
pub(crate) async fn limit_wait(tx: &mut Connection) -> Result<(), ApiError> {
    Ok(common::db::limit_lock_waits(tx, FIRST_PAUSE).await?)
}

/// Stores and applies an event from Stripe.
///
/// # Errors
/// 503 if the cart's lock is not free in time. The event is not stored then, and Stripe sends it
/// again.
pub(crate) async fn apply(
    locks: &CartLocks,
    events: &Batcher<ApplyEvents>,
    event: StripeEvent,
) -> Result<Effect, ApiError> {
    let id = event.object.named_carts().next().map(CartId::as_str).or(event.object.id.as_deref());
    in_turn(locks, id, || async {
        match events.run(event.clone()).await {
            Ok(Effect::Held) => Err(ApiError::locked()),
            Err(error) if error.is_unique_violation() => Err(ApiError::locked()),
            done => Ok(done?),
        }
    })
    .await
}

/// Pauses between attempts to lock, up to a deadline.
struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { deadline: Instant::now() + LONGEST_WAIT, pause: FIRST_PAUSE }
    }

    /// Waits until the next attempt.
    ///
    /// # Errors
    /// 503 if the next attempt would be after the deadline.
    async fn pause(&mut self) -> Result<(), ApiError> {
        if Instant::now() + self.pause > self.deadline {
            return Err(ApiError::locked());
        }
        sleep(self.pause).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_for_one_cart_are_served_in_order_and_leave_no_mutex() {
        let locks = CartLocks::default();
        let (one, other) = ("cart_1", "cart_2");
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = locks.acquire(one, soon()).await.unwrap();
        let _of_another_cart = locks.acquire(other, soon()).await.unwrap();
        assert!(locks.acquire(one, soon()).await.is_err(), "the first request holds the permit");
        let second = tokio::spawn({
            let locks = locks.clone();
            async move { locks.acquire(one, Instant::now() + Duration::from_secs(5)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(second.await.unwrap());
        assert_eq!(mutex::lock(&locks.0).len(), 1);
    }
}
