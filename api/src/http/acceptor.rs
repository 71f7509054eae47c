//! Accepts connections up to a limit in total and a limit per client.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::mutex::lock;
use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use super::client::{is_trusted_proxy, subscriber};

/// The most open connections; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// The shortest time between two equal warnings.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// File descriptors kept for other uses: Postgres, listeners, logs.
const OTHER_FILES: usize = 128;

/// Raises the soft limit of open files to the hard limit. (The default, often 1,024, is for
/// programs that use `select`.)
pub fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If that fails, fewer connections are accepted.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn connections() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| usize::try_from(now).unwrap_or(usize::MAX));
    connections_of(files)
}

/// The connection limit of a process that may open `files` files.
fn connections_of(files: usize) -> usize {
    CONNECTIONS.min(files.saturating_sub(OTHER_FILES)).max(1)
}

/// Accepts connections within both limits. One client may have half of all connections.
pub(crate) struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    clients: Clients,
    trusted_proxies: Vec<IpNet>,
    full: Warning,
    client_full: Warning,
}

impl Acceptor {
    /// `trusted_proxies` carry the connections of many clients, so the limit per client does not
    /// apply to them.
    pub(crate) fn new(listener: TcpListener, trusted_proxies: Vec<IpNet>) -> Self {
        let all = connections();
        Self {
            listener,
            permits: Arc::new(Semaphore::new(all)),
            clients: Clients { connections: Arc::default(), limit: all.div_ceil(2) },
            trusted_proxies,
            full: Warning::default(),
            client_full: Warning::default(),
        }
    }

    /// Waits for a free permit and the next connection.
    pub(crate) async fn accept(&mut self) -> (Permit, TcpStream, SocketAddr) {
        if self.permits.available_permits() == 0 && self.full.is_due() {
            tracing::warn!(connections = connections(), "Connection limit reached; new connections wait");
        }
        let permit = match self.permits.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => std::future::pending().await, // the semaphore is never closed
        };
        loop {
            match self.listener.accept().await {
                Ok((connection, peer)) => {
                    if is_trusted_proxy(peer.ip(), &self.trusted_proxies) {
                        return (Permit { _permit: permit, _client: None }, connection, peer);
                    }
                    if let Some(client) = self.clients.add(peer.ip()) {
                        return (Permit { _permit: permit, _client: Some(client) }, connection, peer);
                    }
                    if self.client_full.is_due() {
                        let limit = self.clients.limit;
                        tracing::warn!(
                            limit,
                            "A client reached its connection limit; its new connections are closed \
                            (if the client is your proxy, add it to TRUSTED_PROXIES)"
                        );
                    }
                }
                // The client closed the connection, or the process has no free file descriptor.
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// The permits of a connection, released when dropped.
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    _client: Option<ClientPermit>,
}

/// Counts the connections of each client.
struct Clients {
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

impl Clients {
    /// Counts a connection of the client; `None` if the client has reached its limit.
    fn add(&self, peer: IpAddr) -> Option<ClientPermit> {
        let client = subscriber(peer.to_canonical());
        let mut connections = lock(&self.connections);
        let count = connections.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(ClientPermit { client, connections: self.connections.clone() })
    }
}

struct ClientPermit {
    client: IpAddr,
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut connections = lock(&self.connections);
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

/// Limits how often a warning is logged.
#[derive(Debug, Default)]
struct Warning {
    logged_at: Option<Instant>,
}

impl Warning {
    fn is_due(&mut self) -> bool {
        let due = self.logged_at.is_none_or(|logged_at| logged_at.elapsed() > LOG_EVERY);
        if due {
            self.logged_at = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_limited_to_its_share_of_connections() {
        let clients = Clients { connections: Arc::default(), limit: 2 };
        let add = |address: &str| clients.add(address.parse().unwrap());
        let (one, two) = (add("2001:db8::1"), add("2001:db8::2"));
        assert!(one.is_some() && two.is_some() && add("2001:db8::3").is_none(), "a /64 is one client");
        let other = add("192.0.2.1");
        assert!(other.is_some() && add("::ffff:192.0.2.1").is_some());
        drop(two);
        assert!(add("2001:db8::3").is_some());
        drop((one, other));
        assert!(clients.connections.lock().unwrap().is_empty());
    }

    #[test]
    fn the_connection_limit_leaves_files_for_other_uses() {
        let limits = [usize::MAX, 4_096 + 128, 1_024, 128, 0].map(connections_of);
        assert_eq!(limits, [4_096, 4_096, 896, 1, 1]);
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new(listener, Vec::new());
        assert_eq!(acceptor.permits.available_permits(), connections());
        acceptor.permits = Arc::new(Semaphore::new(2));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, _second) = (acceptor.accept().await, acceptor.accept().await);
        let waits = tokio::time::timeout(Duration::from_millis(200), acceptor.accept()).await.is_err();
        assert!(waits, "both permits are taken");
        assert_eq!(acceptor.permits.available_permits(), 0);
        drop(first);
        let (_, _, peer) = tokio::time::timeout(Duration::from_secs(60), acceptor.accept()).await.unwrap();
        assert_eq!(peer, clients[2].local_addr().unwrap());
    }
}
