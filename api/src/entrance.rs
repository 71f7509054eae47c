//! Lets connections in while there is room, and nobody takes all of it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use crate::client::{is_trusted_proxy, subscriber};

/// Connections at a time; more wait until the system accepts them no more.
const CONNECTIONS: usize = 4096;
/// How often the log repeats that there is no room.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Files that are for something else than connections: those to Postgres, the listeners, logs.
const OTHER_FILES: usize = 128;

/// Lets this process have as many open files as it may. (The limit it starts with, often 1,024,
/// is there for programs that use `select`.)
pub fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // It goes on with less if it must.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn connections() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| usize::try_from(now).unwrap_or(usize::MAX));
    CONNECTIONS.min(files.saturating_sub(OTHER_FILES)).max(1)
}

/// Accepts connections within both limits: all together, and half of that for one client.
pub(crate) struct Entrance {
    listener: TcpListener,
    places: Arc<Semaphore>,
    clients: Clients,
    trusted_proxies: Vec<IpNet>,
    full: Warning,
    one_has_too_many: Warning,
}

impl Entrance {
    /// Clients of `trusted_proxies` come by those, which therefore have no limit of their own.
    pub(crate) fn of(listener: TcpListener, trusted_proxies: Vec<IpNet>) -> Self {
        let all = connections();
        Self {
            listener,
            places: Arc::new(Semaphore::new(all)),
            clients: Clients { connections: Arc::default(), limit: all.div_ceil(2) },
            trusted_proxies,
            full: Warning::default(),
            one_has_too_many: Warning::default(),
        }
    }

    /// The next connection, once there is a place for it.
    pub(crate) async fn next(&mut self) -> (Place, TcpStream, SocketAddr) {
        if self.places.available_permits() == 0 && self.full.is_due() {
            tracing::warn!(connections = connections(), "there is no room for more connections; new ones wait");
        }
        let permit = match self.places.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => std::future::pending().await, // nobody closes it
        };
        loop {
            match self.listener.accept().await {
                Ok((connection, peer)) => {
                    if is_trusted_proxy(peer.ip(), &self.trusted_proxies) {
                        return (Place { _permit: permit, _client: None }, connection, peer);
                    }
                    if let Some(client) = self.clients.enter(peer.ip()) {
                        return (Place { _permit: permit, _client: Some(client) }, connection, peer);
                    }
                    if self.one_has_too_many.is_due() {
                        let limit = self.clients.limit;
                        tracing::warn!(
                            limit,
                            "one client has too many connections; its new ones are closed \
                            (if it is your proxy, name it in TRUSTED_PROXIES)"
                        );
                    }
                }
                // The client went away again, or there are no more files: others may do better.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// A connection's place: given back when it is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _client: Option<OfClient>,
}

/// How many connections each client has.
struct Clients {
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

impl Clients {
    /// `None`: it has all that it may have.
    fn enter(&self, peer: IpAddr) -> Option<OfClient> {
        let client = subscriber(peer.to_canonical());
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(OfClient { client, connections: self.connections.clone() })
    }
}

struct OfClient {
    client: IpAddr,
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

/// What is not said again for each who waits.
#[derive(Debug, Default)]
struct Warning {
    said: Option<Instant>,
}

impl Warning {
    fn is_due(&mut self) -> bool {
        let due = self.said.is_none_or(|said| said.elapsed() > SAY_EVERY);
        if due {
            self.said = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_of_connections_and_no_more() {
        let clients = Clients { connections: Arc::default(), limit: 2 };
        let enter = |address: &str| clients.enter(address.parse().unwrap());
        let (one, two) = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(one.is_some() && two.is_some() && enter("2001:db8::3").is_none(), "a /64 is one client");
        let other = enter("192.0.2.1");
        assert!(other.is_some() && enter("::ffff:192.0.2.1").is_some());
        drop(two);
        assert!(enter("2001:db8::3").is_some());
        drop((one, other));
        assert!(clients.connections.lock().unwrap().is_empty());
    }
}
