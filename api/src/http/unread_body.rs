//! Handles requests that were answered before their body was read: a rejection without a key, a
//! body of the wrong type, a panic.
//!
//! hyper closes such an HTTP/1.1 connection silently, and the client's next request on it gets no
//! response. Over HTTP/2 hyper resets the stream, and some clients then drop the response. Here the
//! rest of the body is read first if it is small. Otherwise input is discarded for a while, so that
//! the client can read the response, and an HTTP/1.1 response has `connection: close`.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, Version, header},
};
use common::mutex::lock;
use futures_util::StreamExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;
use tower::ServiceExt;

/// The most bytes of an unread body that are read to keep the connection.
const DRAIN_BYTES: usize = 64 * 1024;
/// The longest that a response waits for these bytes.
const DRAIN_TIME: Duration = Duration::from_millis(100);
/// How long input is discarded after a response with `connection: close`.
const LINGER: Duration = Duration::from_secs(5);

/// Routes a request and returns its response, with `connection: close` if the connection can't be
/// reused.
pub(crate) async fn answer(request: Request<Incoming>, router: Router) -> Response<Body> {
    if request.body().is_end_stream() {
        return route(request.map(Body::new), router).await;
    }
    let version = request.version();
    let waits = version <= Version::HTTP_11 && request.headers().contains_key(header::EXPECT);
    let rest = Arc::new(Mutex::new(Rest::InUse));
    let request = request.map(|body| Body::new(Watched { body: Some(body), begun: false, rest: rest.clone() }));
    let mut response = route(request, router).await;
    let left = std::mem::replace(&mut *lock(&rest), Rest::Read);
    let stays = match left {
        Rest::Read => true,
        // An import reads on while its response is sent.
        Rest::InUse => response.status().is_success(),
        Rest::Broken => false,
        // The client waits for `100 Continue`, which is not sent after the response.
        Rest::Unread { begun: false, .. } if waits => false,
        Rest::Unread { body, .. } => drain(Body::new(body)).await,
    };
    if !stays && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn route(request: Request<Body>, router: Router) -> Response<Body> {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// Reads the rest of a body if it is small and arrives in time. Otherwise returns `false`, and a
/// task discards the rest.
async fn drain(body: Body) -> bool {
    let announced = body.size_hint().lower();
    let mut body = body.into_data_stream();
    let little = async {
        let mut left = DRAIN_BYTES;
        while let Some(piece) = body.next().await {
            match piece.ok().and_then(|piece| left.checked_sub(piece.len())) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    if announced <= DRAIN_BYTES as u64 && timeout(DRAIN_TIME, little).await == Ok(true) {
        return true;
    }
    tokio::spawn(timeout(LINGER, async move { while let Some(Ok(_)) = body.next().await {} }));
    false
}

/// The rest of a request's body.
enum Rest {
    /// A handler still holds the body.
    InUse,
    /// Read to its end.
    Read,
    /// Reading failed.
    Broken,
    /// Dropped before its end. `begun`: reading had begun.
    Unread { body: Incoming, begun: bool },
}

/// A body that stores its unread rest in `rest` when dropped.
struct Watched {
    body: Option<Incoming>,
    begun: bool,
    rest: Arc<Mutex<Rest>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        self.begun = true;
        let ended = match &polled {
            Poll::Ready(None) => Rest::Read,
            Poll::Ready(Some(Err(_))) => Rest::Broken,
            _ => return polled,
        };
        self.body = None;
        *lock(&self.rest) = ended;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let rest = if body.is_end_stream() { Rest::Read } else { Rest::Unread { body, begun: self.begun } };
            *lock(&self.rest) = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tower_http::catch_panic::CatchPanicLayer;

    async fn panics() {
        panic!("on purpose");
    }

    /// A panic drops the body like any other early response.
    #[tokio::test]
    async fn after_a_panic_the_connection_is_said_to_end() {
        let router = axum::Router::new().route("/", post(panics)).layer(CatchPanicLayer::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(crate::serve(listener, router, Vec::new(), std::future::pending(), super::LINGER));
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        let mut answer = [0; 500];
        let read = connection.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        connection.write_all(b"hello").await.unwrap();
        assert_eq!(connection.read(&mut [0; 500]).await.unwrap(), 0);
    }
}
