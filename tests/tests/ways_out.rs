//! Calls to other services from a company's network: through its proxy, with its own certificate
//! authority.

use std::{net::SocketAddr, path::PathBuf};

use tests::{App, Authority, ConnectProxy, Setup, Tunnel, eventually, processes::Process};

use crate::processes::Shop;

/// The host that only the proxy knows.
const STRIPE: &str = "stripe.company.example";
/// `shop:never_told` in base64.
const CREDENTIALS: &str = "Basic c2hvcDpuZXZlcl90b2xk";

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A server of this name with a certificate of a company's own authority, behind a proxy; and the
/// file of the authority's certificate.
async fn company(name: &str, target: SocketAddr) -> (ConnectProxy, PathBuf) {
    let authority = Authority::new("the company's own");
    let proxy = ConnectProxy::start(Tunnel::To(authority.serve(name, target).await)).await;
    let file = std::env::temp_dir().join(format!("ways-out-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&file, &authority.certificate).unwrap();
    (proxy, file)
}

fn with_password(proxy: &ConnectProxy) -> String {
    format!("http://shop:never_told@{}", proxy.address)
}

/// Runs `worker doctor`, which calls Stripe, with these additional variables; returns the line about
/// Stripe.
async fn doctor(app: &App, variables: &[(&'static str, String)]) -> String {
    let mut all = vec![
        ("DATABASE_URL", app.database.url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_1".to_owned()),
        ("STRIPE_API_URL", format!("https://{STRIPE}")),
    ];
    all.extend_from_slice(variables);
    let output = tests::processes::run("worker", &["doctor"], all).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("never_told"), "{text}");
    text.lines().find(|line| line.contains(" stripe ")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn a_link_is_made_and_paid_through_the_proxy_and_a_private_authority() {
    let shop = Shop::open().await;
    let (proxy, file) = company(STRIPE, address_of(&shop.stripe.url())).await;
    let _api = shop.api().await;
    let mut variables = shop.worker_variables();
    variables.retain(|(name, _)| *name != "STRIPE_API_URL");
    variables.extend([
        ("STRIPE_API_URL", format!("https://{STRIPE}")),
        ("HTTPS_PROXY", with_password(&proxy)),
        ("SSL_CERT_FILE", file.to_str().unwrap().to_owned()),
    ]);
    let mut worker = Process::start("worker", variables).await;
    worker.says("worker is working").await;
    let (status, cart) = shop.call(shop.http.post(shop.url("/api/carts")).json(&tests::a_cart())).await;
    assert_eq!(status, 201, "{cart}");
    let path = format!("/api/carts/{}", cart["data"]["id"].as_str().unwrap());
    let (status, link) = shop.call(shop.http.post(shop.url(&format!("{path}/payment-link")))).await;
    assert_eq!(status, 200, "{link}");
    let page = link["data"]["paymentLink"].as_str().unwrap();
    assert!(shop.http.post(format!("{page}/pay")).send().await.unwrap().status().is_success());
    eventually("it is recovered", async || {
        shop.call(shop.http.get(shop.url(&path))).await.1["data"]["status"] == "recovered"
    })
    .await;
    let requests = proxy.requests();
    assert!(requests[0].starts_with(&format!("CONNECT {STRIPE}:443 HTTP/1.1\r\n")), "{requests:?}");
    assert!(requests.iter().all(|request| request.contains(CREDENTIALS)), "{requests:?}");
    std::fs::remove_file(file).unwrap();
}

/// Shells, containers and cron set one or the other.
#[tokio::test]
async fn curls_names_of_the_variables_are_known() {
    let app = Setup::default().without_worker().start().await;
    let (proxy, file) = company(STRIPE, address_of(&app.stripe.url())).await;
    let trusted = ("SSL_CERT_FILE", file.to_str().unwrap().to_owned());
    let without_scheme = format!("shop:never_told@{}", proxy.address);
    for (asked, name) in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().enumerate() {
        let blank = if name == "HTTPS_PROXY" { "HTTP_PROXY" } else { "HTTPS_PROXY" };
        let line = doctor(&app, &[(name, without_scheme.clone()), (blank, String::new()), trusted.clone()]).await;
        assert!(line.starts_with("ok"), "{name}: {line}");
        assert!(proxy.requests().len() > asked, "{name} was not used");
    }
    let before = proxy.requests().len();
    for name in ["NO_PROXY", "no_proxy"] {
        let except = (name, "localhost,.company.example".to_owned());
        let line = doctor(&app, &[("https_proxy", without_scheme.clone()), except, trusted.clone()]).await;
        assert!(line.starts_with("PROBLEM") && line.contains("dns error") && !line.contains("proxy"), "{line}");
    }
    assert_eq!(proxy.requests().len(), before, "the host was named as an exception");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn an_unknown_authority_is_refused_through_the_proxy_too() {
    let app = Setup::default().without_worker().start().await;
    let (proxy, file) = company(STRIPE, address_of(&app.stripe.url())).await;
    let line = doctor(&app, &[("HTTPS_PROXY", with_password(&proxy))]).await;
    assert!(line.starts_with("PROBLEM") && line.contains("UnknownIssuer"), "{line}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_without_its_password() {
    let app = Setup::default().without_worker().start().await;
    for (tunnel, why) in [
        (Tunnel::Refused("403 Forbidden"), "tunnel"),
        (Tunnel::Refused("407 Proxy Authentication Required"), "authorization"),
        (Tunnel::Refused("502 Bad Gateway"), "tunnel"),
        (Tunnel::Silent, "nothing for 20s"),
    ] {
        let proxy = ConnectProxy::start(tunnel).await;
        let line = doctor(&app, &[("HTTPS_PROXY", with_password(&proxy))]).await;
        let named = format!("through the proxy http://{} (HTTPS_PROXY)", proxy.address);
        assert!(line.starts_with("PROBLEM") && line.contains(why) && line.contains(&named), "{tunnel:?}: {line}");
    }
    let nobody = tests::free_address();
    let line = doctor(&app, &[("HTTPS_PROXY", format!("http://shop:never_told@{nobody}"))]).await;
    assert!(line.starts_with("PROBLEM") && line.contains(&format!("through the proxy http://{nobody}")), "{line}");
}

/// Plain http is for services nearby, which a company's proxy does not reach.
#[tokio::test]
async fn plain_http_is_direct() {
    let app = Setup::default().without_worker().start().await;
    let proxy = ConnectProxy::start(Tunnel::Refused("403 Forbidden")).await;
    let mut variables = vec![("STRIPE_API_URL", app.stripe.url())];
    variables.extend(["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].map(|name| (name, with_password(&proxy))));
    let line = doctor(&app, &variables).await;
    assert!(line.starts_with("ok"), "{line}");
    assert_eq!(proxy.requests(), [""; 0]);
}

#[tokio::test]
async fn traces_go_through_the_proxy() {
    let shop = Shop::open().await;
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, file) = company("collector.company.example", collector.local_addr().unwrap()).await;
    let router = axum::Router::new().fallback(|| async {});
    tokio::spawn(async move { axum::serve(collector, router).await });
    let mut variables = shop.api_variables();
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.company.example:4318".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("HTTPS_PROXY", with_password(&proxy)),
        ("SSL_CERT_FILE", file.to_str().unwrap().to_owned()),
    ]);
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    shop.call(shop.http.get(shop.url("/api/carts"))).await;
    eventually("the spans are exported", async || {
        proxy.requests().iter().any(|request| request.starts_with("CONNECT collector.company.example:4318 "))
    })
    .await;
    assert!(!api.said().iter().any(|line| line.contains("could not export")));
    std::fs::remove_file(file).unwrap();
}
