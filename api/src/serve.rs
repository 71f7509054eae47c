//! Serving connections, each within bounds: whoever connects and then sends
//! nothing, or little, or reads nothing, is let go of.
//!
//! `axum::serve` has no such bounds. Bodies have theirs in `body.rs`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    acceptor::{Acceptor, Permit},
    unread_body,
};

/// A new connection has so long for the head of its first request, whatever it speaks.
const FIRST_HEAD: Duration = Duration::from_secs(15);
/// A later head has so long from the end of the answer before it. Longer than proxies keep
/// connections they don't use (60 s), so that theirs is the end that closes them.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// A client that takes nothing of an answer for so long is given up.
const TAKES_NOTHING: Duration = Duration::from_secs(30);
/// What a connection may have buffered: a head, and what is read or written at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// So often a connection that speaks HTTP/2 is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Requests at a time on one connection that speaks HTTP/2.
const STREAMS: u32 = 100;
/// A head in HTTP/2 may hold so much.
const HEAD_BYTES: u32 = 16 * 1024;

/// Serves until `stop` resolves, then finishes what is in flight for at most `timeout`. Each client
/// address may have half of all connections, except for `trusted_proxies`.
///
/// # Errors
/// None at present: a connection that can't be accepted is logged, and others are served.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    trusted_proxies: Vec<IpNet>,
    stop: impl Future<Output = ()> + Send + 'static,
    timeout: Duration,
) -> std::io::Result<()> {
    let server = Server { builder: builder(), router, ending: GracefulShutdown::new() };
    let mut acceptor = Acceptor::new(listener, trusted_proxies);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            (permit, connection, peer) = acceptor.accept() => server.begin(permit, connection, peer),
        }
    }
    drop(acceptor); // no more connections
    if tokio::time::timeout(timeout, server.ending.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish within SHUTDOWN_TIMEOUT");
    }
    Ok(())
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(NEXT_HEAD).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .max_send_buf_size(BUFFER_BYTES);
    builder
}

struct Server {
    builder: Builder<TokioExecutor>,
    router: Router,
    ending: GracefulShutdown,
}

impl Server {
    fn begin(&self, permit: Permit, connection: TcpStream, peer: SocketAddr) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = connection.set_nodelay(true);
        let mut connection = TimeoutStream::new(connection);
        connection.set_write_timeout(Some(TAKES_NOTHING));
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (router, asked) = (self.router.clone(), asked.clone());
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(ConnectInfo(peer));
                let answer = unread_body::answer(request, router.clone());
                async { Ok::<_, Infallible>(answer.await) }
            }
        });
        let serving = self.builder.serve_connection(TokioIo::new(Box::pin(connection)), service).into_owned();
        let serving = self.ending.watch(serving);
        tokio::spawn(async move {
            let late = async {
                sleep(FIRST_HEAD).await;
                if asked.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                result = serving => {
                    if let Err(error) = result {
                        tracing::trace!(%error, "a connection broke off");
                    }
                }
                () = late => {}
            }
            drop(permit);
        });
    }
}
