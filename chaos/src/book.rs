//! What was acknowledged, and what was found to be against a promise.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::states::{Known, State};

/// What is promised, and looked at while the load goes on.
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

/// A cart, as the one client knows it who changes it.
#[derive(Debug, Clone)]
pub(crate) struct OwnCart {
    pub(crate) id: String,
    /// Nobody else's: by it the cart is found whatever its id.
    pub(crate) email: String,
    pub(crate) total: String,
    pub(crate) known: Known,
    /// The key it was created with, and the body.
    pub(crate) idempotent: Option<(String, String)>,
    /// A session that a shopper may pay.
    pub(crate) session: Option<String>,
    /// The end of its recovery link.
    pub(crate) token: Option<String>,
    /// A session whose money is under way.
    pub(crate) processing: Option<String>,
    /// Stripe has the money.
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

/// Shared by all clients.
#[derive(Debug, Default)]
pub(crate) struct Book {
    violations: Mutex<BTreeMap<&'static str, Violations>>,
    answers: Mutex<BTreeMap<&'static str, BTreeMap<&'static str, u64>>>,
}

/// What was against one promise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Violations {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) examples: Vec<String>,
}

/// More of them tell nothing new.
const EXAMPLES: usize = 8;

impl Book {
    /// Something is against a promise.
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

    /// A request of this kind ended so.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
