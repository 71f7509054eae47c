//! A TCP proxy to Postgres that can be closed and opened.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

use crate::free_address;

/// Forwards connections while open. While closed it refuses new connections; closing resets the
/// existing ones.
#[derive(Debug)]
pub struct Door {
    /// The address to connect to.
    pub address: SocketAddr,
    leads_to: SocketAddr,
    inside: Mutex<JoinSet<()>>,
}

impl Door {
    /// A closed door with its own address.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn closed(leads_to: SocketAddr) -> Self {
        Self { address: free_address(), leads_to, inside: Mutex::default() }
    }

    /// Opens the door.
    ///
    /// # Panics
    /// If its port is in use.
    pub async fn open(&self) {
        let listener = TcpListener::bind(self.address).await.expect("its port is free");
        let leads_to = self.leads_to;
        self.inside.lock().await.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(leads_to).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
    }

    /// Closes the door.
    pub async fn close(&self) {
        self.inside.lock().await.shutdown().await;
    }
}
