//! Ports for servers that take their address from a variable.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

use uuid::Uuid;

/// The start of the range. The range lies below the system's ephemeral ports, so no connection or
/// listener of another test takes one of its ports before the server starts, or while a killed
/// server is down.
const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// The next port to try. Starts at random, because other test processes use the range, too.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a free port; the same one again only after ten thousand calls.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let anywhere = Uuid::new_v4().as_fields().0 % COUNT + 1;
    let _ = NEXT.compare_exchange(0, anywhere, Ordering::AcqRel, Ordering::Acquire);
    let mut ports = (0..COUNT).filter_map(|_| u16::try_from(FIRST + NEXT.fetch_add(1, Ordering::AcqRel) % COUNT).ok());
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("one of ten thousand ports is free")
}

/// A loopback address with a free port.
pub fn free_address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}
