//! Responses over HTTP/2, each reset if its client stops reading it.
//!
//! An HTTP/2 client can read its connection and still grant a stream no window. hyper waits for
//! that window without a limit and does not poll the body meanwhile. So a response is sent in
//! pieces, each once the connection has written the one before. A stream whose piece is not written
//! in time is dropped, which resets it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{Response, Version},
};
use common::mutex::lock;
use hyper::{
    body::{Frame, SizeHint},
    rt::Executor,
};
use tokio::time::{Instant, sleep};

/// A client that reads nothing of a response for this long is disconnected.
pub(crate) const TAKES_NOTHING: Duration = Duration::from_secs(30);

/// Size of a piece: the default size of a frame, so that a client can't keep a stream open by
/// reading a byte now and then.
const PIECE_BYTES: usize = 16 * 1024;
/// How often a stream is checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The stream that the current task serves; HTTP/1.1 has none.
    static STREAM: Arc<Stream>;
}

/// The executor that runs HTTP/2 streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, serving: F) {
        let stream = Arc::new(Stream::default());
        let stalled = stream.clone();
        tokio::spawn(STREAM.scope(stream, async move {
            tokio::select! {
                biased;
                () = serving => {}
                () = stalled.stalls() => tracing::debug!("resetting a stream whose client does not read"),
            }
        }));
    }
}

/// The piece of a response that the connection has not written yet.
#[derive(Debug, Default)]
struct Stream(Mutex<Sending>);

#[derive(Debug, Default)]
struct Sending {
    since: Option<Instant>,
    /// Wakes the task that sends the next piece.
    next: Option<Waker>,
}

impl Stream {
    /// Resolves once a piece has waited too long for the client to read.
    async fn stalls(&self) {
        loop {
            sleep(CHECK_EVERY).await;
            if lock(&self.0).since.is_some_and(|since| since.elapsed() >= TAKES_NOTHING) {
                return;
            }
        }
    }

    fn is_sending(&self) -> bool {
        lock(&self.0).since.is_some()
    }

    fn poll_sent(&self, context: &Context<'_>) -> Poll<()> {
        let mut sending = lock(&self.0);
        if sending.since.is_none() {
            return Poll::Ready(());
        }
        sending.next = Some(context.waker().clone());
        Poll::Pending
    }

    fn send(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        lock(&self.0).since = Some(Instant::now());
        Bytes::from_owner(Piece { bytes, stream: self.clone() })
    }
}

/// A piece of a response; dropped once the connection has written it.
struct Piece {
    bytes: Bytes,
    stream: Arc<Stream>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let next = {
            let mut sending = lock(&self.stream.0);
            sending.since = None;
            sending.next.take()
        };
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Over HTTP/2, splits the response into pieces and ends it when all are written; over HTTP/1.1,
/// returns it unchanged.
pub(crate) fn in_pieces(answer: Response<Body>, open: Option<Open>) -> Response<Body> {
    match STREAM.try_with(Arc::clone) {
        Ok(stream) => answer.map(|body| Body::new(Pieces { body, rest: Bytes::new(), stream, _open: open })),
        Err(_) => answer,
    }
}

struct Pieces {
    body: Body,
    rest: Bytes,
    stream: Arc<Stream>,
    _open: Option<Open>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        ready!(self.stream.poll_sent(context));
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(self.stream.send(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        // False with the last piece: a stream that has ended can't be reset any more.
        self.rest.is_empty() && self.body.is_end_stream() && !self.stream.is_sending()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// Counts the requests of a connection.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    any: bool,
    open: usize,
    idle_since: Option<Instant>,
}

impl Usage {
    /// Counts a request. Over HTTP/2 it is open until its response is sent; `None` over HTTP/1.1,
    /// for which hyper itself detects idle connections.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Option<Open> {
        let mut counts = lock(&self.0);
        counts.any = true;
        (version == Version::HTTP_2).then(|| {
            counts.open += 1;
            counts.idle_since = None;
            Open(self.clone())
        })
    }

    /// Whether the connection ever had a request.
    pub(crate) fn any(&self) -> bool {
        lock(&self.0).any
    }

    /// How long an HTTP/2 connection has had no open request; zero while it has one.
    pub(crate) fn idle_for(&self) -> Duration {
        lock(&self.0).idle_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// An open HTTP/2 request and its response.
#[derive(Debug)]
pub(crate) struct Open(Arc<Usage>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut counts = lock(&self.0.0);
        counts.open -= 1;
        if counts.open == 0 {
            counts.idle_since = Some(Instant::now());
        }
    }
}
