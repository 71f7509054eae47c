//! An HTTP proxy that opens tunnels (CONNECT), as companies have them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use common::mutex::lock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy)]
pub enum Tunnel {
    /// Opens a tunnel to this address, whatever host was named.
    To(SocketAddr),
    /// Refuses with this status line.
    Refused(&'static str),
    /// Never responds.
    Silent,
}

/// A proxy, for as long as the test's runtime lives.
#[derive(Debug)]
pub struct ConnectProxy {
    /// The address to connect to.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts a proxy.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(tunnel: Tunnel) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, tunnel, seen.clone()));
            }
        });
        Self { address, requests }
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

async fn serve(mut client: TcpStream, tunnel: Tunnel, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    lock(&seen).push(String::from_utf8_lossy(&head).into_owned());
    match tunnel {
        Tunnel::To(target) => {
            let mut server = TcpStream::connect(target).await?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        }
        Tunnel::Refused(status) => client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await?,
        Tunnel::Silent => std::future::pending().await,
    }
    Ok(())
}
