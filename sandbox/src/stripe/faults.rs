//! Faults that tests can trigger.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Mutex,
    time::Duration,
};

use tokio::sync::Notify;

use super::lock;

/// The operations of the fake API.
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
    /// `GET /v1/events`
    ListEvents,
    /// A payment, or the end of a delayed one.
    Payment,
}

/// A fault in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429 with `Retry-After`.
    RateLimited {
        /// The value of `Retry-After` in seconds.
        retry_after: u64,
    },
    /// 503 with `Retry-After`.
    Unavailable {
        /// The value of `Retry-After` in seconds.
        retry_after: u64,
    },
    /// 500; stored under the idempotency key and replayed.
    ServerError,
    /// The connection is closed before the request is processed.
    ResetBefore,
    /// The connection is closed after the request was processed.
    ResetAfter,
    /// The response is delayed by this long.
    Slow(Duration),
    /// 200 with a body that is not JSON.
    Garbage,
    /// 502 with an HTML page; the request is not processed.
    HtmlBadGateway,
    /// This status with an HTML page, as from a proxy; the request is not processed.
    Html {
        /// The status code.
        status: u16,
    },
    /// 400 with an error that retries don't resolve.
    Refused,
    /// Like `Refused`, with this message.
    RefusedWith(&'static str),
    /// 400 with an error about this parameter.
    RefusedAbout(&'static str),
    /// An error with this status, whose message repeats the whole request including its headers.
    Repeats {
        /// The status code.
        status: u16,
    },
    /// 401
    Unauthorized,
    /// The created session has no address.
    NoUrl,
    /// The created session has an address outside of Stripe.
    ForeignUrl,
    /// The request is processed and its events are sent; the response waits for `FakeStripe::let_go`.
    Held,
    /// The created session has another amount than requested.
    OtherAmount,
    /// The created session has the metadata of another request.
    OtherSession,
    /// The request is processed; fields of the response are replaced by those of this JSON object.
    Altered(&'static str),
    /// Each session in a list is larger by this number of bytes.
    Padded(usize),
    /// No event of this payment is ever sent.
    Lost,
}

/// Whether the account's key is accepted, until the next change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyState {
    /// Every call is allowed.
    #[default]
    Accepted,
    /// Revoked: every call is answered 401 (<https://docs.stripe.com/keys>).
    Revoked,
    /// A restricted key without the right to write: creating and expiring sessions is answered 403
    /// (<https://docs.stripe.com/keys/restricted-api-keys>).
    ReadOnly,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) key: Mutex<KeyState>,
    waiting: Mutex<HashMap<Operation, VecDeque<Fault>>>,
    calls: Mutex<HashMap<Operation, usize>>,
    /// Sessions whose events are not sent.
    silent: Mutex<HashSet<String>>,
    /// Releases held responses.
    pub(super) let_go: Notify,
}

impl Faults {
    pub(super) fn push(&self, operation: Operation, fault: Fault) {
        lock(&self.waiting).entry(operation).or_default().push_back(fault);
    }

    /// Counts the call and returns its fault, if any.
    pub(super) fn next(&self, operation: Operation) -> Option<Fault> {
        *lock(&self.calls).entry(operation).or_default() += 1;
        lock(&self.waiting).get_mut(&operation)?.pop_front()
    }

    /// Begins a payment of this session, whose events may be lost.
    pub(super) fn begin_payment(&self, session_id: &str) {
        let mut silent = lock(&self.silent);
        match self.next(Operation::Payment) {
            Some(Fault::Lost) => silent.insert(session_id.to_owned()),
            _ => silent.remove(session_id),
        };
    }

    /// Sends events about this session again: those of what happens after its payment.
    pub(super) fn end_loss(&self, session_id: &str) {
        lock(&self.silent).remove(session_id);
    }

    /// Whether events about this session are lost.
    pub(super) fn loses(&self, session_id: &str) -> bool {
        lock(&self.silent).contains(session_id)
    }

    pub(super) fn ahead(&self, operation: Operation) -> usize {
        lock(&self.waiting).get(&operation).map_or(0, VecDeque::len)
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        lock(&self.calls).get(&operation).copied().unwrap_or(0)
    }
}
