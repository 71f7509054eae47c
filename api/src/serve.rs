//! Serving connections, each within bounds: whoever connects and then sends
//! nothing, or little, or reads nothing, is let go of.
//!
//! `axum::serve` has no such bounds. Bodies have theirs in `body.rs`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

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

/// Connections at a time; more wait until the system accepts them no more.
const CONNECTIONS: usize = 4096;
/// How often the log says that they wait.
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

/// Serves until `stop` resolves, then finishes what is in flight for at most `timeout`.
///
/// # Errors
/// None at present: a connection that can't be accepted is logged, and others are served.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    timeout: Duration,
) -> std::io::Result<()> {
    let server = Server { builder: builder(), router, ending: GracefulShutdown::new() };
    let mut entrance = Entrance::of(listener);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            (place, connection, peer) = entrance.next() => server.begin(place, connection, peer),
        }
    }
    drop(entrance); // nobody else may come
    if tokio::time::timeout(timeout, server.ending.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish within SHUTDOWN_TIMEOUT");
    }
    Ok(())
}

/// Lets connections in while there is room.
struct Entrance {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// When it was last said that there is no more room: not again for each who waits.
    said: Option<Instant>,
}

impl Entrance {
    fn of(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections())), said: None }
    }

    /// The next connection, once there is a place for it.
    async fn next(&mut self) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
        if self.places.available_permits() == 0 && self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            tracing::warn!(connections = connections(), "there is no room for more connections; new ones wait");
            self.said = Some(Instant::now());
        }
        let place = match self.places.clone().acquire_owned().await {
            Ok(place) => place,
            Err(_) => std::future::pending().await, // nobody closes it
        };
        loop {
            match self.listener.accept().await {
                Ok((connection, peer)) => return (place, connection, peer),
                // The client went away again, or there are no more files: others may do better.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
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
    fn begin(&self, place: OwnedSemaphorePermit, connection: TcpStream, peer: SocketAddr) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = connection.set_nodelay(true);
        let mut connection = TimeoutStream::new(connection);
        connection.set_write_timeout(Some(TAKES_NOTHING));
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (router, asked) = (self.router.clone(), asked.clone());
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request)
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
            drop(place);
        });
    }
}
