//! HTTP/2 byte by byte (RFC 9113), for frames that no client library sends.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Types of frames; other types are ignored.
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// Headers.
    pub const HEADERS: u8 = 1;
    /// Ends one stream.
    pub const RST_STREAM: u8 = 3;
    /// Ends the connection.
    pub const GOAWAY: u8 = 7;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame from the server.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The type; see [`kind`].
    pub kind: u8,
    flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether this is the last frame of its stream.
    pub fn ends(&self) -> bool {
        self.kind == kind::RST_STREAM
            || (matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0)
    }
}

/// A client.
#[derive(Debug)]
pub struct Http2 {
    connection: TcpStream,
    next: u32,
    unread: Vec<u8>,
}

impl Http2 {
    /// Connects, and sets the initial window of each stream (65,535 if `None`).
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn open(address: SocketAddr, window: Option<u32>) -> Self {
        let connection = TcpStream::connect(address).await.expect("somebody listens");
        let mut client = Self { connection, next: 1, unread: Vec::new() };
        let settings = window.map(|window| [&[0, 4][..], &window.to_be_bytes()].concat()).unwrap_or_default();
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(kind::SETTINGS, 0, 0, &settings).await;
        client
    }

    /// Ignores write errors; the response shows the reason.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.connection.write_all(bytes).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.write(&frame).await;
    }

    /// Sends exactly these header fields; returns the stream.
    pub async fn request(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0); // a literal without indexing
            for text in [name, value] {
                push_length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(kind::HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, &block).await;
        stream
    }

    /// Sends a `GET` with these additional fields.
    pub async fn get(&mut self, path: &str, further: &[(&str, &str)]) -> u32 {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)];
        self.request(&[&fields[..], further].concat(), true).await
    }

    /// Sends the rest of a body.
    pub async fn body(&mut self, stream: u32, bytes: &[u8]) {
        self.send(kind::DATA, END_STREAM, stream, bytes).await;
    }

    /// Increases a window; stream 0 is the connection.
    pub async fn grant(&mut self, stream: u32, bytes: u32) {
        self.send(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
    }

    /// Returns the next frame of a known type, and answers pings and settings. `None`: the
    /// connection has ended.
    ///
    /// # Errors
    /// If no frame arrives before `deadline`.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<Frame>, tokio::time::error::Elapsed> {
        loop {
            while let Some(frame) = self.take() {
                match frame.kind {
                    kind::SETTINGS | kind::PING if frame.flags & ACK == 0 => {
                        let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                        self.send(frame.kind, ACK, 0, payload).await;
                    }
                    kind::SETTINGS | kind::PING | kind::WINDOW_UPDATE => {}
                    _ => return Ok(Some(frame)),
                }
            }
            let mut bytes = [0; 64 * 1024];
            match timeout_at(deadline, self.connection.read(&mut bytes)).await? {
                Ok(0) | Err(_) => return Ok(None),
                Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Reads without answering pings; returns whether the connection ends before `deadline`.
    pub async fn ends_unanswered(&mut self, deadline: Instant) -> bool {
        let mut bytes = [0; 1024];
        let reading = async { while let Ok(1..) = self.connection.read(&mut bytes).await {} };
        timeout_at(deadline, reading).await.is_ok()
    }

    /// Reads all frames of a stream; `None` if the connection ends before the stream.
    ///
    /// # Panics
    /// If the stream does not end in time.
    pub async fn answer(&mut self, stream: u32, within: Duration) -> Option<Vec<Frame>> {
        let deadline = Instant::now() + within;
        let mut frames = Vec::new();
        loop {
            let frame = self.next(deadline).await.expect("the stream ends in time")?;
            if frame.stream == stream {
                let ends = frame.ends();
                frames.push(frame);
                if ends {
                    return Some(frames);
                }
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.unread.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        let payload = self.unread.get(9..9 + length)?.to_vec();
        self.unread.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }
}

/// An integer as in RFC 7541, 5.1, without Huffman coding.
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        out.push(length as u8);
        return;
    }
    out.push(127);
    length -= 127;
    while length >= 128 {
        out.push((length % 128 + 128) as u8);
        length /= 128;
    }
    out.push(length as u8);
}
