//! Unreliable delivery of events, as Stripe documents it
//! (<https://docs.stripe.com/webhooks#behaviors>): late, out of order, repeated, and retried until
//! they are accepted.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use super::{Shared, events::is_taken, lock};

/// The maximum delay of an event, in milliseconds. Random delays change the order.
const LATEST_MS: u64 = 1_500;
/// The pause between attempts. Stripe spreads its attempts over three days.
const AGAIN: Duration = Duration::from_millis(700);
/// The time after which a delivery counts as lost.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Statistics of the unreliable delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// Events that were not accepted yet.
    pub waiting: usize,
    /// Events that were accepted.
    pub taken: usize,
    /// Attempts that were dropped before they reached the endpoint.
    pub lost: usize,
    /// Attempts of events that were accepted before, and were accepted again.
    pub repeated: usize,
    /// Attempts that were refused or got no response.
    pub refused: usize,
}

#[derive(Debug, Default)]
struct Counters {
    waiting: AtomicUsize,
    taken: AtomicUsize,
    lost: AtomicUsize,
    repeated: AtomicUsize,
    refused: AtomicUsize,
}

/// A queue of events, each of which is delivered eventually.
#[derive(Debug)]
pub(super) struct Mail {
    events: mpsc::UnboundedSender<String>,
    counters: Arc<Counters>,
}

impl Mail {
    pub(super) fn post(&self, body: String) {
        self.counters.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.events.send(body); // the receiver lives as long as `self`
    }

    pub(super) fn counts(&self) -> MailCounts {
        let of = |counter: &AtomicUsize| counter.load(Ordering::Acquire);
        let Counters { waiting, taken, lost, repeated, refused } = &*self.counters;
        MailCounts {
            waiting: of(waiting),
            taken: of(taken),
            lost: of(lost),
            repeated: of(repeated),
            refused: of(refused),
        }
    }
}

/// Switches to unreliable delivery. Later calls have no effect.
pub(super) fn open(shared: &Arc<Shared>, seed: u64) {
    let (events, mut posted) = mpsc::unbounded_channel();
    let counters = Arc::new(Counters::default());
    if shared.mail.set(Mail { events, counters: counters.clone() }).is_err() {
        return;
    }
    let weak = Arc::downgrade(shared);
    let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    tokio::spawn(async move {
        while let Some(body) = posted.recv().await {
            tokio::spawn(carry(weak.clone(), body, dice.clone(), counters.clone()));
        }
    });
}

async fn carry(shared: Weak<Shared>, body: String, dice: Arc<Mutex<StdRng>>, counters: Arc<Counters>) {
    let roll = |chance: f64| lock(&dice).random_bool(chance);
    let wait = lock(&dice).random_range(0..LATEST_MS);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    let mut taken = false;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if roll(0.1) {
            counters.lost.fetch_add(1, Ordering::AcqRel); // dropped
        } else {
            let status = tokio::time::timeout(TIMEOUT, shared.deliver(&body)).await.ok().flatten();
            match status.is_some_and(is_taken) {
                true if !taken => {
                    taken = true;
                    counters.taken.fetch_add(1, Ordering::AcqRel);
                    counters.waiting.fetch_sub(1, Ordering::AcqRel);
                }
                true => {
                    counters.repeated.fetch_add(1, Ordering::AcqRel);
                }
                false => {
                    counters.refused.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        // An accepted event is sometimes sent again, as if its response had been lost.
        if taken && roll(0.75) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
