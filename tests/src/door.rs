//! A way to Postgres that can be closed and opened.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

use crate::free_address;

/// Forwards connections while it is open; closed, it refuses new ones and cuts
/// those there are.
#[derive(Debug)]
pub struct Door {
    /// Where to knock.
    pub address: SocketAddr,
    leads_to: SocketAddr,
    inside: Mutex<JoinSet<()>>,
}

impl Door {
    /// A closed one, at an address of its own.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn closed(leads_to: SocketAddr) -> Self {
        Self { address: free_address(), leads_to, inside: Mutex::default() }
    }

    /// Opens it.
    ///
    /// # Panics
    /// If somebody took its port meanwhile.
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

    /// Closes it.
    pub async fn close(&self) {
        self.inside.lock().await.shutdown().await;
    }
}
