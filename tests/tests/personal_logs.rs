//! Logs contain no personal data, at any level.

use nix::sys::signal::Signal;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{lives::ZEBEDEE, processes::Process};

use crate::processes::Shop;

/// All lines of a process that has ended.
async fn whole_log(mut process: Process) -> Vec<String> {
    process.signal(Signal::SIGTERM);
    let mut lines = Vec::new();
    while let Some(line) = process.next_line().await {
        lines.push(line);
    }
    assert_eq!(process.ends().await, Some(0));
    lines
}

async fn started(name: &str, mut variables: Vec<(&'static str, String)>, says: &str) -> (Process, Vec<String>) {
    variables.retain(|(name, _)| *name != "LOG_FORMAT");
    variables.extend([("RUST_LOG", "trace".to_owned()), ("LOG_FORMAT", "json".to_owned())]);
    let mut process = Process::start(name, variables).await;
    let mut lines = Vec::new();
    loop {
        let line = process.next_line().await.expect("it starts");
        let is_ready = line.contains(says);
        lines.push(line);
        if is_ready {
            return (process, lines);
        }
    }
}

/// Sends most kinds of requests about a person's cart, including failing ones.
async fn live(shop: &Shop) {
    let with_key = |method: Method, path: &str| shop.http.request(method, shop.url(path));
    let post = async |path: &str, body: &Value| shop.call(with_key(Method::POST, path).json(body)).await;
    let create = with_key(Method::POST, "/api/carts").header("idempotency-key", "key of zebedee");
    let (status, cart) = shop.call(create.json(&ZEBEDEE.cart())).await;
    assert_eq!(status, 201, "{cart}");
    let id = cart["data"]["id"].as_str().unwrap();
    shop.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    let (status, link) = shop.link(id).await;
    assert_eq!(status, 200, "{link}");
    let page = link["data"]["paymentLink"].as_str().unwrap();
    assert_eq!(shop.http.post(format!("{page}/pay")).send().await.unwrap().status(), 200);

    // Stripe refuses and repeats the address.
    let mut refused = ZEBEDEE.cart();
    refused["customerEmail"] = json!("\"zebedee\"@qüill.example");
    let (_, cart) = post("/api/carts", &refused).await;
    assert_eq!(shop.link(cart["data"]["id"].as_str().unwrap()).await.0, 200, "without the address");

    // Invalid, unstorable and malformed requests.
    let mut malformed = ZEBEDEE.cart();
    malformed["customerEmail"] = json!("zebedee quill");
    malformed["items"][0]["quantity"] = json!("zebedee");
    assert_eq!(post("/api/carts", &malformed).await.0, 422);
    let broken =
        with_key(Method::POST, "/api/carts").header("content-type", "application/json").body("{\"zebedee\": quill");
    assert_eq!(shop.call(broken).await.0, 400);
    let pool = shop.database.pool(1);
    sqlx::query("insert into carts (id, customer_email, customer_name, items, total_minor, currency)
                 values ('cart_by_hand', 'zebedee@private.example', 'Zebedee', '[{\"name\": \"x\", \"quantity\": \"quill\"}]', 100, 'usd')")
        .execute(&pool)
        .await
        .unwrap();
    // Its lines can't be read, so Stripe gets one line with the total.
    assert_eq!(shop.link("cart_by_hand").await.0, 200);
    let kept: Vec<String> =
        sqlx::query_scalar("select jobs::text from jobs where last_error is not null").fetch_all(&pool).await.unwrap();
    assert!(kept.iter().all(|job| !job.contains("quill") && !job.contains("zebedee")), "{kept:?}");

    // Search, export, import and erasure.
    let email = ZEBEDEE.cart()["customerEmail"].clone();
    let email = email.as_str().unwrap();
    for path in
        [format!("/api/carts?email={email}"), format!("/api/erasure/export?email={email}"), format!("/api/{email}")]
    {
        shop.call(with_key(Method::GET, &path)).await;
    }
    let export = with_key(Method::GET, "/api/carts/export").header("x-api-key", "key").send().await.unwrap();
    assert!(export.text().await.unwrap().contains("Quillfeather"));
    let import = with_key(Method::POST, "/api/carts/import").header("x-api-key", "key");
    let import = import.header("content-type", "application/x-ndjson").body(format!("{}\nzebedee\n", ZEBEDEE.cart()));
    assert_eq!(import.send().await.unwrap().status(), 200);
    let (status, receipt) = post("/api/erasure", &json!({"email": email})).await;
    assert_eq!((status, &receipt["data"]["removed"]["carts"]), (200, &json!(2)));
    let (status, _) =
        shop.call(with_key(Method::DELETE, &format!("/api/carts/{}", cart["data"]["id"].as_str().unwrap()))).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn no_log_names_a_shopper_however_much_is_logged() {
    let shop = Shop::open().await;
    let ((api, mut lines), (worker, of_worker)) = tokio::join!(
        started("api", shop.api_variables(), "api is listening"),
        started("worker", shop.worker_variables(), "worker is working"),
    );
    lines.extend(of_worker);
    live(&shop).await;
    lines.extend(whole_log(api).await);
    lines.extend(whole_log(worker).await);

    // Check that the search above would find such data.
    let traced = |target: &str| lines.iter().any(|line| line.contains("\"TRACE\"") && line.contains(target));
    assert!(traced("hyper"), "{} lines", lines.len());
    assert!(lines.iter().any(|line| line.contains("insert into carts")), "statements are logged");
    let words = ["zebedee", "quill", "kaleidoscope", "private.example"];
    let telling: Vec<&String> =
        lines.iter().filter(|line| words.iter().any(|word| line.to_lowercase().contains(word))).collect();
    assert!(telling.is_empty(), "{} of {} lines: {:#?}", telling.len(), lines.len(), &telling[..telling.len().min(20)]);
}
