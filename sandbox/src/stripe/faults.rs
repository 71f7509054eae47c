//! Faults on demand.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use tokio::sync::Notify;

use super::lock;

/// What can be asked of Stripe here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST /v1/checkout/sessions`
    Create,
    /// `POST /v1/checkout/sessions/:id/expire`
    Expire,
    /// `GET /v1/checkout/sessions/:id`
    Retrieve,
    /// `GET /v1/checkout/sessions`
    List,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429 with `Retry-After: 1` … or another number of seconds.
    RateLimited {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// 503 with `Retry-After`: Stripe is ill, and this one request is to wait.
    Unavailable {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// 500; under an idempotency key it is stored and replayed.
    ServerError,
    /// The connection ends before anything was done.
    ResetBefore,
    /// The connection ends after it was done.
    ResetAfter,
    /// It takes this long.
    Slow(Duration),
    /// 200 with a body that is no JSON.
    Garbage,
    /// 502 with a page of HTML, nothing done.
    HtmlBadGateway,
    /// This status with a page of HTML, nothing done: of a proxy, and not of Stripe.
    Html {
        /// Of the answer.
        status: u16,
    },
    /// 400 of a kind that no retry heals.
    Refused,
    /// The same with this message.
    RefusedWith(&'static str),
    /// An error with this status whose message repeats the whole request, its headers included.
    Repeats {
        /// Of the answer.
        status: u16,
    },
    /// 401
    Unauthorized,
    /// A session without an address.
    NoUrl,
    /// A session whose page is not at Stripe.
    ForeignUrl,
    /// The request is processed and its events are sent; the answer waits for `StandIn::let_go`.
    Held,
    /// A session with another amount than requested.
    OtherAmount,
    /// A session of another request.
    OtherSession,
    /// It is done; the fields of this JSON object stand in the answer in place of its own.
    Altered(&'static str),
    /// Each session in a list is so many bytes larger.
    Padded(usize),
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Mutex<HashMap<Operation, VecDeque<Fault>>>,
    calls: Mutex<HashMap<Operation, usize>>,
    /// Held answers wait for this.
    pub(super) let_go: Notify,
}

impl Faults {
    pub(super) fn push(&self, operation: Operation, fault: Fault) {
        lock(&self.waiting).entry(operation).or_default().push_back(fault);
    }

    /// Counts the call, and says what goes wrong with it.
    pub(super) fn next(&self, operation: Operation) -> Option<Fault> {
        *lock(&self.calls).entry(operation).or_default() += 1;
        lock(&self.waiting).get_mut(&operation)?.pop_front()
    }

    pub(super) fn ahead(&self, operation: Operation) -> usize {
        lock(&self.waiting).get(&operation).map_or(0, VecDeque::len)
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        lock(&self.calls).get(&operation).copied().unwrap_or(0)
    }
}
