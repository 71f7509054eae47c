//! The worker's connections to Stripe: whom it trusts, and how long it waits.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sandbox::stripe::{Fault, Operation};
use tests::{App, DEADLINE, Setup, eventually};
use tokio::time::timeout;

/// Waits until an attempt to make the link has failed with this error.
async fn attempt_failed(app: &App, id: &str, error: &str) {
    eventually("the attempt has failed", async || {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        shown["lastError"].as_str().is_some_and(|text| text.contains(error))
    })
    .await;
}

/// Everybody can sign a certificate for this name; no authority of the web signed this one.
#[tokio::test]
async fn a_server_without_a_trusted_certificate_gets_no_request() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let handshake = tokio::task::spawn_blocking(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut connection)?;
        }
        std::io::Result::Ok(())
    });
    let app = Setup::default().set("STRIPE_API_URL", &url).set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    attempt_failed(&app, &id, "UnknownIssuer").await;
    let refused = timeout(DEADLINE, handshake).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().contains("UnknownCA"), "{refused}");
}

#[tokio::test]
async fn a_response_is_awaited_for_20_s() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::Slow(Duration::from_secs(3_600)));
    let id = app.cart().await;
    let begun = Instant::now();
    app.ask(&id).await.data(202);
    attempt_failed(&app, &id, "nothing for 20s").await;
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
}
