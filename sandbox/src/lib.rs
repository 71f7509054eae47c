//! The whole product on one machine, for evaluation and tests; not for production.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

pub mod cargo;
pub mod postgres;
pub mod proxy;
pub mod stripe;

/// Selects the TLS cryptography provider of this process, without which HTTPS clients can't be
/// built. Later calls have no effect.
pub fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
