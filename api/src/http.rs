//! HTTP infrastructure between connections and handlers: limits, parsing, errors, compression,
//! logs.

pub(crate) mod acceptor;
pub(crate) mod base_path;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod compression;
pub(crate) mod cors;
pub(crate) mod declared;
pub(crate) mod error;
pub(crate) mod etag;
pub(crate) mod metrics;
pub(crate) mod pagination;
pub(crate) mod preferences;
pub(crate) mod query;
pub(crate) mod rate_limit;
pub(crate) mod request_log;
pub(crate) mod schema;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod unread_body;
pub(crate) mod unverified_bodies;
