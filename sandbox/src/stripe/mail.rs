//! An unreliable way for events: as the internet is, and Stripe says so
//! (<https://docs.stripe.com/webhooks#behaviors>): late, out of order, more than
//! once, and again until they are taken.

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

/// An event waits for up to this long before it is sent, so that later ones overtake it.
const LATEST_MS: u64 = 1_500;
/// Between attempts, which Stripe spreads over three days.
const AGAIN: Duration = Duration::from_millis(700);
/// A delivery that takes longer is taken for lost.
const PATIENCE: Duration = Duration::from_secs(25);

/// How the way went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// Events that were not taken yet.
    pub waiting: usize,
    /// Events that were taken.
    pub taken: usize,
    /// Attempts that were lost before they arrived.
    pub lost: usize,
    /// Events sent again though they were taken.
    pub repeated: usize,
    /// Attempts that were refused, or got no answer.
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

/// Takes events; what it promises is that each arrives some day.
#[derive(Debug)]
pub(super) struct Mail {
    events: mpsc::UnboundedSender<String>,
    counters: Arc<Counters>,
}

impl Mail {
    pub(super) fn post(&self, body: String) {
        self.counters.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.events.send(body); // the receiver lives as long as this
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

/// Opens the way, once.
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
            counters.lost.fetch_add(1, Ordering::AcqRel); // it never arrives
        } else {
            let status = tokio::time::timeout(PATIENCE, shared.deliver(&body)).await.ok().flatten();
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
        // What was taken comes again now and then, because its answer was lost.
        if taken && roll(0.75) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
