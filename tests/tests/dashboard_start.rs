//! `/start` and the empty states: requests to copy, and which steps work.

use common::api_keys::Scope;
use reqwest::Method;
use tests::{App, Setup, eventually};

use crate::dashboard::Operator;

/// The ids of the steps that work.
fn works(page: &str) -> Vec<&str> {
    let steps = page.split(r#"<li class="card" id="step-"#).skip(1);
    steps.filter(|step| step.contains("Works</span>")).map(|step| step.split('"').next().unwrap()).collect()
}

/// The text of a command of a page.
fn command(page: &str, id: &str) -> String {
    let (_, text) = page.split_once(&format!("<code id=\"{id}\">")).expect("a command");
    let text = text.split("</code>").next().unwrap();
    text.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<")
}

/// Sends what a curl command of a page says.
async fn curl(app: &App, command: &str) -> tests::Answer {
    let url = command.strip_prefix("curl -X POST ").unwrap().split(' ').next().unwrap();
    let path = url.strip_prefix(&app.url("")).unwrap_or_else(|| panic!("{url} is not at the operator's address"));
    let mut request = app.bare_request(Method::POST, path);
    for header in command.split("-H '").skip(1) {
        let (name, value) = header.split('\'').next().unwrap().split_once(": ").unwrap();
        request = request.header(name, value.replace("YOUR_KEY", "test-key"));
    }
    if let Some((_, body)) = command.split_once("-d '") {
        request = request.body(body.split('\'').next().unwrap().to_owned());
    }
    app.send(request).await
}

#[tokio::test]
async fn each_step_is_checked_once_it_works() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let start = async || operator.get("/start").await.text;
    let page = start().await;
    assert_eq!(works(&page), ["key"]);
    let made = curl(&app, &command(&page, "store-cart")).await.data(201);
    let page = start().await;
    assert_eq!(works(&page), ["key", "cart"]);

    let worker = app.start_worker();
    let request = command(&page, "request-link");
    assert!(request.contains(made["id"].as_str().unwrap()), "{request}");
    let link = curl(&app, &request).await.data(200);
    assert_eq!(works(&start().await), ["key", "cart", "link"]);

    let page = start().await;
    assert_eq!(command(&page, "webhook-url"), app.url("/api/webhooks/stripe"));
    app.signed_webhook("{}", "t=1,v1=00").await.is_error(400, "BAD_REQUEST");
    eventually("the refused one is shown, and does not count", async || {
        let page = start().await;
        page.contains("1 webhook failed verification") && works(&page) == ["key", "cart", "link"]
    })
    .await;
    let session = link["paymentLink"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    app.stripe.pay(&session).await.unwrap();
    eventually("the webhook has arrived", async || works(&start().await).contains(&"webhook")).await;
    worker.stop().await;
}

#[tokio::test]
async fn an_empty_shop_is_shown_what_to_send() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    for path in ["/", "/carts"] {
        let page = operator.get(path).await.text;
        assert!(command(&page, "store-cart").contains(&app.url("/api/carts ")), "{page}");
        assert!(
            page.contains(r#"href="/start""#) && page.contains(r#"href="/docs""#) && !page.contains("<svg class"),
            "{page}"
        );
    }
    app.cart().await;
    for path in ["/", "/carts"] {
        assert!(!operator.get(path).await.text.contains("store-cart"), "{path}");
    }
    assert!(operator.get("/").await.text.contains("<svg class"));
    let empty = operator.get("/carts?status=expired").await.text;
    assert!(empty.contains("0 carts"), "{empty}");
    assert!(operator.get("/carts?page=99").await.text.contains("No such page."));
    let docs = app.send(app.bare_request(Method::GET, "/docs")).await.text;
    assert!(docs.contains(r#"<a href="/">Dashboard</a>"#) && docs.contains(r#"href="/start""#), "{docs}");
}

#[tokio::test]
async fn a_key_that_may_not_store_carts_does_not_count() {
    let app = Setup::default().without_worker().start().await;
    let key = crate::api_keys::key(&app.pool, "reader", &[Scope::Operator, Scope::Read], None).await;
    let operator = Operator::sign_in(&app, &key).await;
    let page = operator.get("/start").await.text;
    assert!(works(&page).is_empty() && page.contains("may not store carts"), "{page}");
}
