//! Everything on one machine, for trying it out and for tests; never part of a
//! production image.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

pub mod postgres;
pub mod proxy;
pub mod stripe;

/// Chooses the cryptography for HTTPS clients in this process; without a choice
/// they can't be built. Choosing twice changes nothing.
pub fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
