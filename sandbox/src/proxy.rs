//! A TCP proxy that can cut, stall or lose connections.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use common::mutex::lock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Connections are numbered in order. An action on all existing connections applies to the smaller
/// numbers.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Whether bytes are held back, on existing and new connections.
    stalled: bool,
    /// Connections with smaller numbers are closed.
    cut_before: u64,
    /// Connections with smaller numbers discard all bytes without an answer, like a firewall that
    /// dropped their state.
    dead_before: u64,
}

/// A proxy; it stops accepting connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The address to connect to.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    targets: Vec<SocketAddr>,
    next_target: AtomicUsize,
    next_number: AtomicU64,
    /// The local ports of the connections to the targets, by which a target identifies them.
    ports: Mutex<HashSet<u16>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Starts a proxy that forwards to the targets in turn, and tries the next one if a target
    /// refuses.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(targets: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::default()),
            targets,
            next_target: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            ports: Mutex::default(),
        });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    // The client disconnected at once, or too many files are open for the moment.
                    let Ok((client, _)) = listener.accept().await else { continue };
                    tokio::spawn(shared.clone().serve(client));
                }
            }
        });
        Ok(Self { address, shared, accepting })
    }

    /// Closes all existing connections.
    pub fn cut(&self) {
        let next = self.shared.next_number.load(Ordering::Acquire);
        self.shared.state.send_modify(|state| state.cut_before = next);
    }

    /// Holds all bytes back, or forwards them again.
    pub fn stall(&self, stalled: bool) {
        self.shared.state.send_modify(|state| state.stalled = stalled);
    }

    /// Discards all bytes of the existing connections until they are [cut](Self::cut).
    pub fn lose(&self) {
        let next = self.shared.next_number.load(Ordering::Acquire);
        self.shared.state.send_modify(|state| state.dead_before = next);
    }

    /// Whether one of the connections to the targets has this local port.
    pub fn has_port(&self, port: u16) -> bool {
        lock(&self.shared.ports).contains(&port)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let number = self.next_number.fetch_add(1, Ordering::AcqRel);
        let Some(server) = self.reach().await else { return };
        let port = server.local_addr().map_or(0, |address| address.port());
        lock(&self.ports).insert(port);
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let mut state = self.state.subscribe();
        let pump = |from, to| pump(from, to, number, self.state.subscribe());
        tokio::select! {
            _ = async { tokio::join!(pump(from_client, to_server), pump(from_server, to_client)) } => {}
            _ = state.wait_for(|state| number < state.cut_before) => {}
        }
        lock(&self.ports).remove(&port);
    }

    async fn reach(&self) -> Option<TcpStream> {
        for _ in 0..self.targets.len() {
            let turn = self.next_target.fetch_add(1, Ordering::AcqRel);
            if let Ok(server) = TcpStream::connect(self.targets[turn % self.targets.len()]).await {
                return Some(server);
            }
        }
        None
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let dead = state.wait_for(|state| !state.stalled).await.is_ok_and(|state| number < state.dead_before);
        match read {
            // On a lost connection the other side does not learn that this one closed, either.
            Ok(0) | Err(_) if dead => std::future::pending().await,
            Ok(0) => return to.shutdown().await,
            Ok(_) if dead => {}
            Ok(read) => to.write_all(&buffer[..read]).await?,
            Err(error) => return Err(error),
        }
    }
}
