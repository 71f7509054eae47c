//! Serves connections with limits: a client that sends nothing, sends too slowly or does not read
//! is disconnected.
//!
//! `axum::serve` has no such limits. Limits for bodies are in `body.rs`.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::ConnectInfo,
    http::{HeaderValue, Version, header},
    middleware,
};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;

use super::{
    acceptor::{Acceptor, Permit},
    error::ApiError,
    request_log,
    streams::{self, Streams, TAKES_NOTHING, Usage},
    unread_body,
};

/// Time limit for the first request head of a connection, in any protocol.
const FIRST_HEAD: Duration = Duration::from_secs(15);
/// Time limit for each later head, counted from the end of the response before it. Longer than
/// proxies keep idle connections (60 s), so that the proxy's end closes them.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// How often a connection is checked for being idle.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Buffer limit of a connection: for a request head, and for each read or write.
const BUFFER_BYTES: usize = 64 * 1024;
/// Interval and timeout of HTTP/2 pings.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Concurrent requests on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// Maximum size of an HTTP/2 request head.
const HEAD_BYTES: u32 = 16 * 1024;

/// Serves until `stop` resolves, then finishes what is in flight for at most `timeout`. Each client
/// address may have half of all connections, except for `trusted_proxies`.
///
/// # Errors
/// None at present: a connection that can't be accepted is logged, and the others are served.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    trusted_proxies: Vec<IpNet>,
    stop: impl Future<Output = ()> + Send + 'static,
    timeout: Duration,
) -> std::io::Result<()> {
    let refusing = Router::new()
        .fallback(|| async { ApiError::bad_request("The request must have exactly one Host header") })
        .layer(middleware::from_fn(request_log::log));
    let server = Server { builder: builder(), router, refusing, ending: watch::Sender::new(()) };
    let mut acceptor = Acceptor::new(listener, trusted_proxies);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            (permit, connection, peer) = acceptor.accept() => server.begin(permit, connection, peer),
        }
    }
    drop(acceptor); // closes the listener
    let _ = server.ending.send(());
    if tokio::time::timeout(timeout, server.ending.closed()).await.is_err() {
        tracing::warn!("some requests did not finish within SHUTDOWN_TIMEOUT");
    }
    Ok(())
}

fn builder() -> Builder<Streams> {
    let mut builder = Builder::new(Streams);
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
    builder: Builder<Streams>,
    router: Router,
    /// Rejects requests that do not have exactly one host.
    refusing: Router,
    /// Notifies every connection of the shutdown; closed once all connections have ended.
    ending: watch::Sender<()>,
}

impl Server {
    fn begin(&self, permit: Permit, connection: TcpStream, peer: SocketAddr) {
        // Responses are small and complete, so waiting to fill a packet only delays them.
        let _ = connection.set_nodelay(true);
        let mut connection = TimeoutStream::new(connection);
        connection.set_write_timeout(Some(TAKES_NOTHING));
        let usage = Arc::new(Usage::default());
        let service = service_fn({
            let (router, refusing, usage) = (self.router.clone(), self.refusing.clone(), usage.clone());
            move |mut request: Request<Incoming>| {
                let open = usage.begin(request.version());
                request.extensions_mut().insert(ConnectInfo(peer));
                let router = if has_one_host(&mut request) { &router } else { &refusing };
                let answer = unread_body::answer(request, router.clone());
                async { Ok::<_, Infallible>(streams::in_pieces(answer.await, open)) }
            }
        });
        let serving = self.builder.serve_connection(TokioIo::new(Box::pin(connection)), service).into_owned();
        let mut ending = self.ending.subscribe();
        tokio::spawn(async move {
            let mut serving = pin!(serving);
            let (mut told, mut check_in) = (false, FIRST_HEAD);
            loop {
                tokio::select! {
                    biased;
                    result = serving.as_mut() => {
                        if let Err(error) = result {
                            tracing::trace!(%error, "a connection broke off");
                        }
                        break;
                    }
                    _ = ending.changed(), if !told => {
                        told = true;
                        serving.as_mut().graceful_shutdown();
                    }
                    () = sleep(check_in) => {
                        let idle = usage.idle_for();
                        // The client never sent a request, or did not follow the graceful shutdown.
                        if !usage.any() || idle >= NEXT_HEAD + TAKES_NOTHING {
                            break;
                        }
                        if idle >= NEXT_HEAD {
                            serving.as_mut().graceful_shutdown();
                        }
                        check_in = CHECK_EVERY;
                    }
                }
            }
            drop((permit, ending));
        });
    }
}

/// Whether the request names exactly one host, as RFC 9112 (3.2) requires of HTTP/1.1. A host in
/// the target (`:authority` in HTTP/2) replaces the header (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
fn has_one_host(request: &mut Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let authority = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = authority {
        request.headers_mut().insert(header::HOST, host);
    }
    hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11)
}
