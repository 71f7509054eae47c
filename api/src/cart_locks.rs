//! Changing one cart: requests that change the same one take turns, and a cart
//! that somebody else has locked holds up nobody but those who want to change it.
//!
//! A request waits without a connection: behind the others of this process, then
//! by looking now and then whether the lock is free. So the connections are there
//! for all other carts, however many requests wait and for whatever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    carts::{self, CartId, LockedCart, TryLock},
    db::Connection,
    stripe_events::{Effect, StripeEvent},
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep, timeout_at},
};

use crate::{AppState, error::ApiError};

/// The longest wait for a cart. After that nothing was changed, and the client may try again.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// The first pause before the next look at a lock; each further one is twice as long …
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

type Gate = Arc<tokio::sync::Mutex<()>>;

/// The ids of what requests of this process are changing: of carts, or of the objects of events that name none.
#[derive(Debug, Clone, Default)]
pub(crate) struct CartLocks(Arc<Mutex<HashMap<String, Gate>>>);

impl CartLocks {
    fn gates(&self) -> MutexGuard<'_, HashMap<String, Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the requests that came before, in their order.
    async fn turn(&self, id: &str, deadline: Instant) -> Result<Turn, ApiError> {
        let gate = self.gates().entry(id.to_owned()).or_default().clone();
        let mut turn = Turn { locks: self.clone(), id: id.to_owned(), gate, held: None };
        let held = timeout_at(deadline, turn.gate.clone().lock_owned()).await;
        turn.held = Some(held.map_err(|_| ApiError::locked())?);
        Ok(turn)
    }
}

/// A request's turn, or its place in the line; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    locks: CartLocks,
    id: String,
    gate: Gate,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut gates = self.locks.gates();
        // The map's own and this one: nobody else waits.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.id);
        }
    }
}

/// A transaction that has a cart locked.
pub(crate) struct Locked {
    pub(crate) tx: Connection,
    pub(crate) cart: LockedCart,
    /// To be kept until the transaction has ended.
    pub(crate) turn: Turn,
}

/// Locks the cart.
///
/// # Errors
/// 404 if there is none, 503 if others have it locked for too long.
pub(crate) async fn lock(state: &AppState, id: &CartId) -> Result<Locked, ApiError> {
    let mut patience = Patience::new();
    let turn = state.cart_locks.turn(id.as_str(), patience.deadline).await?;
    loop {
        let mut tx = state.by_key.begin().await?;
        match carts::try_lock(&mut tx, id).await? {
            TryLock::Locked(cart) => return Ok(Locked { tx, cart, turn }),
            TryLock::Missing => return Err(ApiError::cart_not_found()),
            TryLock::Held => tx.rollback().await?,
        }
        patience.pause().await?;
    }
}

/// Stores an event of Stripe's and does what it means.
///
/// # Errors
/// 503 if others have its cart locked for too long; then it is not stored, and Stripe sends it again.
pub(crate) async fn apply(state: &AppState, event: StripeEvent) -> Result<Effect, ApiError> {
    let mut patience = Patience::new();
    let id = event.object.named_carts().next().map(CartId::as_str).or(event.object.id.as_deref());
    let _turn = match id {
        Some(id) => Some(state.cart_locks.turn(id, patience.deadline).await?),
        None => None,
    };
    loop {
        match state.events.ask(event.clone()).await {
            Ok(Effect::Held) => patience.pause().await?,
            Err(error) if error.is_locked() => patience.pause().await?,
            done => return Ok(done?),
        }
    }
}

/// How long a request goes on looking whether a lock is free.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { deadline: Instant::now() + LONGEST_WAIT, pause: FIRST_PAUSE }
    }

    /// Until the next look.
    ///
    /// # Errors
    /// 503 if there is no time left for one.
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
    async fn requests_of_one_cart_take_turns_and_leave_nothing_behind() {
        let locks = CartLocks::default();
        let (one, other) = ("cart_1", "cart_2");
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = locks.turn(one, soon()).await.unwrap();
        let _of_another_cart = locks.turn(other, soon()).await.unwrap();
        assert!(locks.turn(one, soon()).await.is_err(), "it is the first one's turn");
        let second = tokio::spawn({
            let locks = locks.clone();
            async move { locks.turn(one, Instant::now() + Duration::from_secs(5)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(second.await.unwrap());
        assert_eq!(locks.gates().len(), 1);
    }
}
