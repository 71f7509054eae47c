//! The HTTP client of calls to other services: Stripe and the trace collector.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Creates a client for one service. It never follows redirects, and `timeout` limits a whole call,
/// including the response's body.
///
/// HTTPS trusts Mozilla's root certificates and those of the operating system, and uses the proxy
/// that `HTTPS_PROXY` and `NO_PROXY` name. Plain HTTP never uses a proxy: it is for services nearby,
/// such as a fake Stripe.
///
/// # Panics
/// Never: the configuration of TLS is fixed, and ring supports it.
pub fn client(base: &str, timeout: Duration) -> Client {
    let is_https = base.starts_with("https:");
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if is_https {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs); // reads files
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports these versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(Policy::none())
        .pool_idle_timeout(Duration::from_secs(30))
        .timeout(timeout)
        .user_agent(concat!("quick-checkout-tracker/", env!("CARGO_PKG_VERSION")));
    let client = if is_https { client } else { client.no_proxy() };
    client.build().expect("reqwest supports this configuration of TLS")
}

/// The error's message with its causes, without the URL of the request.
pub fn message(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
