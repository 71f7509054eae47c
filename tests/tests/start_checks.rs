//! Settings that look fine one by one and would make every link fail are refused at start.

use tests::processes::{Process, run};

/// Nobody listens on this port: a worker that starts waits for Postgres.
const NOWHERE: &str = "postgres://nobody:hush@127.0.0.1:1/none";

fn variables(key: &str, public_url: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![("DATABASE_URL", NOWHERE.to_owned()), ("STRIPE_SECRET_KEY", key.to_owned())];
    if !public_url.is_empty() {
        variables.push(("PUBLIC_URL", public_url.to_owned()));
    }
    variables
}

#[tokio::test]
async fn a_live_key_with_an_http_address_is_refused_at_start() {
    for key in ["sk_live_hush", "rk_live_hush"] {
        for public_url in ["http://shop.example", "http://localhost:3000/tracker", "HTTP://SHOP.EXAMPLE", ""] {
            let output = run("worker", &[], variables(key, public_url)).await;
            let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            assert_eq!(output.status.code(), Some(1), "{key} {public_url}: {said}");
            assert!(said.starts_with("worker: PUBLIC_URL is ") && said.lines().count() == 1, "{said}");
            assert!(!said.contains("hush") && !said.contains("Postgres"), "{said}");
            if public_url != "HTTP://SHOP.EXAMPLE" {
                let advice = said.contains("STRIPE_SECRET_KEY") && said.contains("https") && said.contains("sk_test_");
                assert!(advice, "{said}");
            }
        }
    }
}

#[tokio::test]
async fn other_keys_and_https_addresses_start() {
    let cases = [
        ("sk_live_hush", "https://shop.example/tracker"),
        ("rk_live_hush", "https://localhost"),
        ("sk_test_hush", "http://localhost:3000"),
        ("rk_test_hush", ""),
        ("fake", ""),
    ];
    for (key, public_url) in cases {
        let mut worker = Process::start("worker", variables(key, public_url)).await;
        worker.says("Postgres is unavailable; waiting").await;
    }
}
