//! Connections to Postgres: the pool, a connection in use, timeouts, fail-over and LISTEN.
//!
//! The life of a connection:
//! 1. `pool.rs` opens it when a caller needs one and none is idle.
//! 2. [`Connection`] runs statements on it, each with a timeout (`timeout.rs`).
//! 3. A dropped [`Connection`] returns to the pool. A transaction that was not committed is rolled
//!    back first, and an unfinished statement is waited for.
//! 4. The pool checks a connection before its next use if it was idle for a second. A connection
//!    is closed after half an hour, or if its server became read-only (`failover.rs`).

pub(crate) mod connection;
pub(crate) mod connector;
pub(crate) mod failover;
pub(crate) mod listener;
pub(crate) mod notifier;
pub(crate) mod pool;
pub(crate) mod timeout;

pub use connection::Connection;
pub use listener::Listener;
pub use pool::{Connections, Database, Listen};
