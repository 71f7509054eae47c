//! Records the acknowledged changes and the violations of promises.

use std::{collections::BTreeMap, sync::Mutex};

use common::mutex::lock;

use crate::states::{Known, State};

/// The promises checked while the load runs.
pub(crate) mod promises {
    pub(crate) const ANSWERS: &str = "every request is answered within 20 s by an api that is there";
    pub(crate) const DOCUMENTED: &str = "no answer but those that are documented";
    pub(crate) const FAIR_WEATHER: &str = "no error while all is well";
    pub(crate) const READS: &str = "reads see what was acknowledged";
    pub(crate) const KEYS: &str = "an idempotency key stands for one cart";
    pub(crate) const IMPORTS: &str = "an answered line of an import stays as it was answered";
    pub(crate) const EXPORTS: &str = "an export that ends has every cart, once";
    pub(crate) const PROCESSES: &str = "processes end only when they are killed";
}

/// A cart as known to the client that changes it; no other client does.
#[derive(Debug, Clone)]
pub(crate) struct OwnCart {
    pub(crate) id: String,
    /// Unique, so that the cart can be found without its id.
    pub(crate) email: String,
    pub(crate) total: String,
    pub(crate) known: Known,
    /// The idempotency key and body of its creation.
    pub(crate) idempotent: Option<(String, String)>,
    /// A session that a shopper can pay.
    pub(crate) session: Option<String>,
    /// The token of its recovery link.
    pub(crate) token: Option<String>,
    /// A session with a payment in progress.
    pub(crate) processing: Option<String>,
    /// Whether Stripe has the money.
    pub(crate) paid: bool,
}

impl OwnCart {
    pub(crate) fn new(id: &str, email: &str, total: &str) -> Self {
        Self {
            id: id.to_owned(),
            email: email.to_owned(),
            total: total.to_owned(),
            known: Known::new(State::Abandoned),
            idempotent: None,
            session: None,
            token: None,
            processing: None,
            paid: false,
        }
    }
}

/// The record that all clients share.
#[derive(Debug, Default)]
pub(crate) struct Book {
    violations: Mutex<BTreeMap<&'static str, Violations>>,
    answers: Mutex<BTreeMap<&'static str, BTreeMap<&'static str, u64>>>,
}

/// The violations of one promise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Violations {
    pub(crate) count: u64,
    /// The first violations.
    pub(crate) examples: Vec<String>,
}

/// The number of examples kept per promise.
const EXAMPLES: usize = 8;

impl Book {
    /// Records a violation.
    pub(crate) fn violation(&self, promise: &'static str, what: String) {
        let mut violations = lock(&self.violations);
        let of_promise = violations.entry(promise).or_default();
        of_promise.count += 1;
        if of_promise.examples.len() < EXAMPLES {
            eprintln!("AGAINST A PROMISE ({promise}): {what}");
            of_promise.examples.push(what);
        }
    }

    pub(crate) fn violations(&self, promise: &str) -> Violations {
        lock(&self.violations).get(promise).cloned().unwrap_or_default()
    }

    pub(crate) fn violation_count(&self) -> u64 {
        lock(&self.violations).values().map(|violations| violations.count).sum()
    }

    /// Counts a request of this kind by its outcome.
    pub(crate) fn ended(&self, kind: &'static str, how: &'static str) {
        *lock(&self.answers).entry(kind).or_default().entry(how).or_default() += 1;
    }

    pub(crate) fn answers(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
        lock(&self.answers).clone()
    }

    pub(crate) fn requests(&self) -> u64 {
        lock(&self.answers).values().flat_map(BTreeMap::values).sum()
    }
}
