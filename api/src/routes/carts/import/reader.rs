//! Reads the body of an import and checks its lines, a batch at a time.

use std::time::Duration;

use axum::body::Body;
use chrono::{DateTime, Utc};
use common::carts::Cart;
use futures_util::{Stream, StreamExt};
use tokio::{sync::mpsc, task::coop, time::timeout};

use super::{
    line::{LINE_BYTES, Line},
    lines::Lines,
};
use crate::{
    http::{declared::fields::KnownFields, error::ApiError},
    state::AppState,
};

/// Lines per batch: enough to make the overhead of a transaction small.
const BATCH_LINES: usize = 1_000;
/// A batch with this many bytes is full, however few lines it has.
const BATCH_BYTES: usize = LINE_BYTES;
/// The longest wait for more input, after which the import ends.
const INPUT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an unwanted rest of the body is read, so that the client can read its response: closing
/// a connection with unread bytes may lose the response.
const COURTESY: Duration = Duration::from_secs(10);

/// A result of reading, in the order of the body.
#[derive(Debug)]
pub(crate) enum Piece {
    Batch(Batch),
    /// The body was read to its end.
    End,
    /// The body was not read to its end, with the reason.
    Cut(&'static str),
    /// The body can't be understood at all.
    Refused(ApiError),
}

/// Lines that are stored together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// When the first line was read.
    pub(crate) now: DateTime<Utc>,
    /// The carts to store.
    pub(crate) carts: Vec<Cart>,
    /// The result of each line.
    pub(crate) lines: Vec<Checked>,
    bytes: usize,
}

/// A line that was checked; several lines in the flat form of CSV.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The number of the first line.
    pub(crate) number: u64,
    /// The number of the last line.
    pub(crate) last: u64,
    /// The index of its cart in the batch, or its error.
    pub(crate) cart: Result<usize, ApiError>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES
    }
}

pub(crate) struct Reader {
    lines: Lines,
    state: AppState,
    batch: Batch,
    pieces: mpsc::Sender<Piece>,
    /// Refuses unknown fields.
    strict: Option<KnownFields>,
    input_timeout: Duration,
}

/// The receiver is gone, so the rest of the body is not needed.
struct Unwanted;

impl Reader {
    /// `strict` has the known fields if unknown ones are to be refused.
    pub(crate) fn new(lines: Lines, state: AppState, pieces: mpsc::Sender<Piece>, strict: Option<KnownFields>) -> Self {
        Self { lines, state, batch: Batch::default(), pieces, strict, input_timeout: INPUT_TIMEOUT }
    }

    /// Reads until the body ends or the receiver is gone.
    pub(crate) async fn run(mut self, body: Body) {
        let mut body = body.into_data_stream();
        let last = match self.read(&mut body).await {
            Ok(last) => last,
            Err(Unwanted) => return drain(body).await,
        };
        let read_all = matches!(last, Piece::End);
        if self.hand_over().await.is_ok() {
            let _ = self.pieces.send(last).await;
        }
        if !read_all {
            drain(body).await;
        }
    }

    async fn read<E>(
        &mut self,
        body: &mut (impl Stream<Item = Result<bytes::Bytes, E>> + Unpin),
    ) -> Result<Piece, Unwanted> {
        loop {
            let piece = tokio::select! {
                biased;
                piece = timeout(self.input_timeout, body.next()) => piece,
                // No more input is available yet, and the receiver is idle.
                room = self.pieces.reserve(), if !self.batch.lines.is_empty() => {
                    room.map_err(|_| Unwanted)?.send(Piece::Batch(std::mem::take(&mut self.batch)));
                    continue;
                }
            };
            let at_end = match piece {
                Err(_) => return Ok(Piece::Cut("nothing more was sent for 300 s")),
                Ok(Some(Err(_))) => return Ok(Piece::Cut("the body could not be read to its end")),
                Ok(Some(Ok(bytes))) => {
                    self.lines.feed(&bytes);
                    false
                }
                Ok(None) => true,
            };
            loop {
                match self.lines.next(at_end) {
                    Ok(Some(line)) => self.take(line),
                    Ok(None) => break,
                    Err(error) => return Ok(Piece::Refused(error)),
                }
                if self.batch.is_full() {
                    self.hand_over().await?;
                }
                // Yield to other requests.
                coop::consume_budget().await;
            }
            if at_end {
                return Ok(Piece::End);
            }
        }
    }

    fn take(&mut self, line: Line) {
        if self.batch.lines.is_empty() {
            self.batch.now = self.state.clock.now();
        }
        self.batch.bytes += line.bytes;
        let (number, last) = (line.number, line.last);
        let cart = line.parse(self.state.config.currency, self.batch.now, self.strict.as_ref()).map(|cart| {
            self.batch.carts.push(cart);
            self.batch.carts.len() - 1
        });
        self.batch.lines.push(Checked { number, last, cart });
    }

    /// Sends the batch once the channel has room.
    async fn hand_over(&mut self) -> Result<(), Unwanted> {
        if self.batch.lines.is_empty() {
            return Ok(());
        }
        self.pieces.send(Piece::Batch(std::mem::take(&mut self.batch))).await.map_err(|_| Unwanted)
    }
}

async fn drain<E>(mut body: impl Stream<Item = Result<bytes::Bytes, E>> + Unpin) {
    let rest = async { while let Some(Ok(_)) = body.next().await {} };
    let _ = timeout(COURTESY, rest).await;
}

#[cfg(test)]
mod tests {
    use common::{
        clock::Clock,
        config::Env,
        db::{Listen, Pools},
    };
    use futures_util::stream;

    use super::*;
    use crate::{PgNotifications, routes::carts::import::lines::Format};

    /// There is no Postgres at this address, and reading needs none.
    fn state() -> AppState {
        let env = Env::of([("API_KEY", "key"), ("STRIPE_WEBHOOK_SECRET", "whsec_test"), ("PUBLIC_URL", "http://x")]);
        let pools = Pools::new("postgres://nobody@127.0.0.1:1/none".parse().unwrap(), Listen::Off, 2);
        let news = PgNotifications::start(pools.database.clone());
        AppState::new(pools, Clock::system(), env.read().unwrap(), news)
    }

    #[tokio::test]
    async fn an_import_ends_after_300_s_without_a_byte() {
        let (sender, mut pieces) = mpsc::channel(3);
        let mut reader = Reader::new(Lines::new(Format::Ndjson), state(), sender, None);
        assert_eq!(reader.input_timeout, Duration::from_secs(300));
        reader.input_timeout = Duration::from_millis(100);
        let some = stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{}\n{}\n"))]);
        let reading = tokio::spawn(reader.run(Body::from_stream(some.chain(stream::pending()))));
        let next = async |pieces: &mut mpsc::Receiver<Piece>| {
            tokio::time::timeout(Duration::from_secs(60), pieces.recv()).await.unwrap()
        };
        let first = next(&mut pieces).await;
        assert!(matches!(&first, Some(Piece::Batch(batch)) if batch.lines.len() == 2), "{first:?}");
        let last = next(&mut pieces).await;
        assert!(matches!(last, Some(Piece::Cut("nothing more was sent for 300 s"))), "{last:?}");
        reading.abort();
    }

    /// The next import sends the lines of a cart together, so none may be reported without the
    /// others.
    #[tokio::test]
    async fn a_cart_whose_lines_are_cut_off_has_no_result() {
        let (sender, mut pieces) = mpsc::channel(3);
        let reader = Reader::new(Lines::new(Format::Csv), state(), sender, None);
        let file = "externalId,customerEmail,itemName,itemQuantity,itemPrice\n\
            A,a@example.com,Tea,1,1\nA,,Cup,1,1\n\nB,b@example.com,Tea,1,1\n";
        let cut = [Ok(bytes::Bytes::from(file)), Err(std::io::Error::other("gone"))];
        reader.run(Body::from_stream(stream::iter(cut))).await;
        let Some(Piece::Batch(batch)) = pieces.recv().await else { panic!("a batch") };
        assert_eq!(batch.lines.iter().map(|line| (line.number, line.last)).collect::<Vec<_>>(), [(2, 3)]);
        assert!(matches!(pieces.recv().await, Some(Piece::Cut(_))));
    }
}
