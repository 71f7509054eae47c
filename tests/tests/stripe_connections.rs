//! The worker's connections to Stripe: certificates and timeouts. `ways_out.rs` has proxies.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sandbox::stripe::{Fault, Operation};
use tests::{App, DEADLINE, Setup, eventually};
use tokio::{task::JoinHandle, time::timeout};

/// Waits until an attempt to make the link has failed with this error.
async fn attempt_failed(app: &App, id: &str, error: &str) {
    eventually("the attempt has failed", async || {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        shown["lastError"].as_str().is_some_and(|text| text.contains(error))
    })
    .await;
}

/// A server with a certificate that no authority signed, its address, and the outcome of the first handshake.
fn serve(certified: &CertifiedKey<KeyPair>) -> (String, JoinHandle<std::io::Result<()>>) {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let handshake = tokio::task::spawn_blocking(move || {
        let (mut connection, _) = listener.accept()?;
        connection.set_read_timeout(Some(DEADLINE))?;
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut connection)?;
        }
        Ok(())
    });
    (url, handshake)
}

fn certified() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_gets_no_request() {
    let (url, handshake) = serve(&certified());
    let app = Setup::default().set("STRIPE_API_URL", &url).set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    attempt_failed(&app, &id, "UnknownIssuer").await;
    let refused = timeout(DEADLINE, handshake).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().contains("UnknownCA"), "{refused}");
}

/// Runs `worker doctor`, which calls Stripe once, with these additional variables; returns the line
/// about Stripe.
async fn doctor(app: &App, url: &str, variables: &[(&'static str, String)]) -> String {
    let mut all = vec![
        ("DATABASE_URL", app.database.url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_never_told".to_owned()),
        ("STRIPE_API_URL", url.to_owned()),
    ];
    all.extend_from_slice(variables);
    let output = tests::processes::run("worker", &["doctor"], all).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("never_told"), "{text}");
    text.lines()
        .find(|line| line.contains(" stripe "))
        .unwrap_or_else(|| panic!("no check of Stripe: {text}"))
        .to_owned()
}

#[tokio::test]
async fn the_systems_certificates_are_trusted() {
    let app = Setup::default().without_worker().start().await;
    let certified = certified();
    let file = std::env::temp_dir().join(format!("{}.pem", app.database.name));
    std::fs::write(&file, certified.cert.pem()).unwrap();
    let (url, handshake) = serve(&certified);
    doctor(&app, &url, &[("SSL_CERT_FILE", file.to_str().unwrap().to_owned())]).await;
    std::fs::remove_file(&file).unwrap();
    timeout(DEADLINE, handshake).await.unwrap().unwrap().expect("the certificate is trusted");
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
