//! Injects faults of Stripe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::stage::Scene;
use sandbox::stripe::{Fault as StripeFault, KeyState, Operation};

/// Makes Stripe respond late, wrongly or not at all from time to time.
pub(crate) async fn rain(scene: Arc<Scene>, seed: u64, stop: Arc<AtomicBool>) {
    const FAULTS: [(&str, StripeFault); 12] = [
        ("Stripe answers 429", StripeFault::RateLimited { retry_after: 1 }),
        ("Stripe answers 503", StripeFault::Unavailable { retry_after: 1 }),
        ("Stripe stores a 500 under a key", StripeFault::ServerError),
        ("Stripe's connection ends before anything is done", StripeFault::ResetBefore),
        ("Stripe's answer is lost", StripeFault::ResetAfter),
        ("Stripe's answer is lost", StripeFault::ResetAfter),
        ("Stripe answers late", StripeFault::Slow(Duration::from_secs(3))),
        ("Stripe answers too late", StripeFault::Slow(Duration::from_secs(22))),
        ("Stripe returns unreadable bodies", StripeFault::Garbage),
        ("Stripe's gateway answers 502", StripeFault::HtmlBadGateway),
        ("Stripe's gateway answers 404", StripeFault::Html { status: 404 }),
        ("Stripe's gateway answers 400", StripeFault::Html { status: 400 }),
    ];
    const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Create, Operation::Expire, Operation::Retrieve];
    let mut dice = StdRng::seed_from_u64(seed ^ 0x5742_1b7e);
    while !stop.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(dice.random_range(100..900))).await;
        let (Some((name, fault)), Some(operation)) = (FAULTS.choose(&mut dice), OPERATIONS.choose(&mut dice)) else {
            return;
        };
        if dice.random_bool(0.1) && scene.stripe.faults_ahead(Operation::Payment) == 0 {
            scene.stripe.fail_next(Operation::Payment, StripeFault::Lost);
            scene.tally.count("all events of a payment are lost for good", true);
        }
        if dice.random_bool(0.05) && scene.stripe.faults_ahead(Operation::Create) == 0 {
            scene.stripe.fail_next(Operation::Create, StripeFault::RefusedAbout("customer_email"));
            scene.tally.count("Stripe refuses the shopper's address", true);
            continue;
        }
        if dice.random_bool(0.03) {
            scene.stripe.set_key(KeyState::Revoked);
            scene.tally.count("Stripe does not accept the key for a second", true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            scene.stripe.set_key(KeyState::Accepted);
        }
        // Don't accumulate faults that no call has met yet.
        if scene.stripe.faults_ahead(*operation) == 0 {
            scene.stripe.fail_next(*operation, *fault);
            scene.tally.count(*name, true);
        }
    }
}
