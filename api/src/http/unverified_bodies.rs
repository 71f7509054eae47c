//! Reads bodies of senders that are not authenticated yet: webhooks, whose signature covers the
//! whole body, and forms of the dashboard. They share one memory budget.
//!
//! When the budget is used up, the client that holds the most loses its oldest unfinished body. So
//! a client that sends many bodies, or slowly, delays only itself, and a small body that arrives at
//! once gets in even from the same address (all clients share one behind a proxy that is not in
//! `TRUSTED_PROXIES`).

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Bytes, HttpBody},
    extract::{ConnectInfo, Request},
};
use common::mutex::lock;
use futures_util::StreamExt;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::{
    body::{check_encoding, within_time},
    client,
    error::ApiError,
};

/// The most bytes of all bodies together. Buffers grow by doubling, so memory may reach twice that.
const BUDGET_BYTES: usize = 32 * 1024 * 1024;
/// Added to the size of each body, for its task and its connection.
const OVERHEAD_BYTES: usize = 8 * 1024;
/// Time limit for receiving such a body; they are small and sent at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads bodies within the shared budget.
#[derive(Debug, Clone)]
pub(crate) struct UnverifiedBodies {
    budget: Arc<Mutex<Budget>>,
    trusted_proxies: Arc<[IpNet]>,
}

impl UnverifiedBodies {
    pub(crate) fn new(trusted_proxies: &[IpNet]) -> Self {
        Self { budget: Arc::new(Mutex::new(Budget::of(BUDGET_BYTES))), trusted_proxies: trusted_proxies.into() }
    }

    /// Reads the body, of at most `limit` bytes. The request's head is dropped first.
    ///
    /// # Errors
    /// 415 if the body is compressed, 413 if it is too large, 408 if it is too slow, 503 if it is
    /// evicted from the budget.
    pub(crate) async fn read(&self, request: Request, limit: usize) -> Result<Bytes, ApiError> {
        check_encoding(request.headers())?;
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip());
        let client = client::of(peer, request.headers(), &self.trusted_proxies);
        let body = request.into_body();
        // A body that announces its size is refused before it is read.
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::too_large(limit));
        }
        let share = Share::of(&self.budget, client);
        let reading = async {
            let mut body = body.into_data_stream();
            let mut read = Vec::new();
            loop {
                let piece = tokio::select! {
                    biased;
                    () = share.evicted.cancelled() => return Err(ApiError::busy()),
                    piece = body.next() => piece,
                };
                let Some(piece) = piece else { return Ok(read.into()) };
                let piece = piece.map_err(|_| ApiError::bad_request("The body could not be read to its end"))?;
                if read.len() + piece.len() > limit {
                    return Err(ApiError::too_large(limit));
                }
                share.grow(piece.len());
                read.extend_from_slice(&piece);
            }
        };
        within_time(TIMEOUT, reading).await?
    }
}

/// One body's part of the budget, released when it is dropped or evicted.
struct Share {
    budget: Arc<Mutex<Budget>>,
    number: u64,
    evicted: CancellationToken,
}

impl Share {
    fn of(budget: &Arc<Mutex<Budget>>, client: IpAddr) -> Self {
        let evicted = CancellationToken::new();
        let number = lock(budget).begin(client, evicted.clone());
        Self { budget: budget.clone(), number, evicted }
    }

    fn grow(&self, bytes: usize) {
        lock(&self.budget).grow(self.number, bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.budget).remove(self.number);
    }
}

#[derive(Debug)]
struct Budget {
    capacity: usize,
    used: usize,
    /// Bodies in the order they began.
    bodies: BTreeMap<u64, Held>,
    clients: HashMap<IpAddr, usize>,
    next_number: u64,
}

#[derive(Debug)]
struct Held {
    client: IpAddr,
    bytes: usize,
    evicted: CancellationToken,
}

impl Budget {
    fn of(capacity: usize) -> Self {
        Self { capacity, used: 0, bodies: BTreeMap::new(), clients: HashMap::new(), next_number: 0 }
    }

    fn begin(&mut self, client: IpAddr, evicted: CancellationToken) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.bodies.insert(number, Held { client, bytes: 0, evicted });
        self.grow(number, OVERHEAD_BYTES);
        number
    }

    fn grow(&mut self, number: u64, bytes: usize) {
        let Some(held) = self.bodies.get_mut(&number) else { return };
        held.bytes += bytes;
        *self.clients.entry(held.client).or_default() += bytes;
        self.used += bytes;
        while self.used > self.capacity && self.evict() {}
    }

    /// Evicts the oldest body of the client that holds the most. `false` if there is none.
    fn evict(&mut self) -> bool {
        let largest = self.clients.iter().max_by_key(|(_, bytes)| **bytes).map(|(client, _)| *client);
        let oldest = self.bodies.iter().find(|(_, held)| Some(held.client) == largest).map(|(number, _)| *number);
        let evicted = oldest.and_then(|oldest| self.remove(oldest));
        evicted.inspect(|held| held.evicted.cancel()).is_some()
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.bodies.remove(&number)?;
        self.used -= held.bytes;
        if let Some(bytes) = self.clients.get_mut(&held.client) {
            *bytes -= held.bytes;
            if *bytes == 0 {
                self.clients.remove(&held.client);
            }
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_FOR: usize = 10;

    fn budget() -> Arc<Mutex<Budget>> {
        Arc::new(Mutex::new(Budget::of(ROOM_FOR * OVERHEAD_BYTES)))
    }

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn evicted(shares: &[Share]) -> Vec<bool> {
        shares.iter().map(|share| share.evicted.is_cancelled()).collect()
    }

    #[test]
    fn the_client_that_holds_the_most_loses_its_oldest() {
        let budget = budget();
        let genuine = Share::of(&budget, client(1));
        let many: Vec<Share> = (0..2 * ROOM_FOR).map(|_| Share::of(&budget, client(2))).collect();
        assert!(!genuine.evicted.is_cancelled());
        assert_eq!(evicted(&many).iter().filter(|evicted| **evicted).count(), ROOM_FOR + 1);
        assert!(evicted(&many)[..=ROOM_FOR].iter().all(|evicted| *evicted), "the oldest go first");
        // A body that grows evicts itself and no other client's.
        let large = Share::of(&budget, client(3));
        large.grow(ROOM_FOR * OVERHEAD_BYTES);
        assert!(large.evicted.is_cancelled() && !genuine.evicted.is_cancelled());
        drop((genuine, many, large));
        let budget = lock(&budget);
        assert_eq!((budget.used, budget.bodies.len(), budget.clients.len()), (0, 0, 0));
    }

    #[test]
    fn behind_one_address_the_newest_stay() {
        let budget = budget();
        let stalled: Vec<Share> = (0..ROOM_FOR).map(|_| Share::of(&budget, client(1))).collect();
        let genuine = Share::of(&budget, client(1));
        assert!(!genuine.evicted.is_cancelled());
        assert_eq!(evicted(&stalled).iter().position(|evicted| !evicted), Some(1));
    }
}
