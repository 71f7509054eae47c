//! The settings of Checkout Sessions, and how a payment is described.

use sandbox::stripe::{Fault, Operation, PaymentStatus, Session, SessionOptions};
use serde_json::{Value, json};
use tests::{App, Setup, a_line, eventually, exact};

use crate::foreign_events::{COMPLETED, outcome, refused};

const ALL: [(&str, &str); 6] = [
    ("CHECKOUT_SHIPPING_COUNTRIES", "us, CA"),
    ("CHECKOUT_BILLING_ADDRESS", "required"),
    ("CHECKOUT_PHONE", "on"),
    ("CHECKOUT_PROMOTION_CODES", "on"),
    ("CHECKOUT_AUTOMATIC_TAX", "on"),
    ("CHECKOUT_DESCRIPTION", "Tea & Co, order {order}"),
];

async fn with(variables: &[(&str, &str)]) -> App {
    variables.iter().fold(Setup::default(), |setup, (name, value)| setup.set(name, value)).start().await
}

fn all_options() -> SessionOptions {
    SessionOptions {
        shipping_countries: vec!["US".to_owned(), "CA".to_owned()],
        billing_address: Some("required".to_owned()),
        phone: true,
        promotion_codes: true,
        automatic_tax: true,
    }
}

#[tokio::test]
async fn every_setting_reaches_stripe() {
    let app = with(&ALL).await;
    let id = app.cart_of(&a_line(json!({"externalId": "order-1001"}))).await;
    app.session(&id).await;
    let session = &app.stripe.sessions()[0];
    assert_eq!(session.options, all_options());
    assert_eq!(session.payment_intent_description.as_deref(), Some("Tea & Co, order order-1001"));
    for metadata in [&session.metadata, &session.payment_intent_metadata] {
        assert_eq!((metadata["external_id"].as_str(), metadata["cart_id"].as_str()), ("order-1001", id.as_str()));
    }
}

/// Without settings, Stripe's defaults apply. A cart without a number of the shop's is named itself.
#[tokio::test]
async fn nothing_is_set_by_default() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    let session = &app.stripe.sessions()[0];
    assert_eq!(session.options, SessionOptions::default());
    assert_eq!(session.payment_intent_description, Some(format!("Cart {id}")));
    assert!(!session.metadata.contains_key("external_id"));
}

#[tokio::test]
async fn stripe_accepts_every_country_that_can_be_set() {
    let codes: Vec<String> =
        ('A'..='Z').flat_map(|first| ('A'..='Z').map(move |second| format!("{first}{second}"))).collect();
    let can_be_set = |code: &&String| {
        let env = common::config::Env::of([("CHECKOUT_SHIPPING_COUNTRIES", code.as_str())]);
        env.read::<common::payment_links::CheckoutSettings>().is_ok()
    };
    let known: Vec<&str> = codes.iter().filter(can_be_set).map(String::as_str).collect();
    assert!(known.len() > 230, "{known:?}");
    let app = with(&[("CHECKOUT_SHIPPING_COUNTRIES", &known.join(","))]).await;
    app.session(&app.cart().await).await;
    assert_eq!(app.stripe.sessions()[0].options.shipping_countries, known);
}

/// Requests a link whose session Stripe creates. Its response is lost, and then the worker ends.
async fn interrupted(app: &App, id: &str) {
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    let worker = app.start_worker();
    app.ask(id).await.data(202);
    eventually("it waits", async || {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        shown["lastError"] == "Stripe answered 503 Service Unavailable"
    })
    .await;
    worker.stop().await;
}

async fn finished(app: &App, id: &str) {
    eventually("the link is ready", async || {
        app.hurry().await;
        app.show(id).await["paymentLink"].is_string()
    })
    .await;
    app.idle().await;
}

/// Every setting is changed between two attempts: the second repeats the request of the first, and so
/// gets the session that Stripe has made.
#[tokio::test]
async fn a_change_of_settings_spends_no_idempotency_key() {
    for (before, after) in [(&[][..], &ALL[..]), (&ALL[..], &[][..])] {
        let setup = before.iter().fold(Setup::default(), |setup, (name, value)| setup.set(name, value));
        let app = setup.without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
        let id = app.cart().await;
        interrupted(&app, &id).await;
        let made = app.stripe.sessions().pop().unwrap();
        let mut changed: Vec<(&str, &str)> = before.iter().map(|(name, _)| (*name, "")).collect();
        changed.extend(after);
        changed.push(("PUBLIC_URL", "https://moved.example"));
        let worker = app.start_worker_with(&changed);
        finished(&app, &id).await;
        assert_eq!(app.stripe.sessions(), [made]);
        // The next request has the settings of its time.
        let next = app.cart().await;
        app.ask(&next).await;
        finished(&app, &next).await;
        let session = app.stripe.sessions().pop().unwrap();
        assert_eq!(session.options, if after.is_empty() { SessionOptions::default() } else { all_options() });
        assert!(session.success_url.starts_with("https://moved.example/pay/"), "{}", session.success_url);
        assert_eq!(session.metadata["link_version"], "1");
        worker.stop().await;
    }
}

/// During a change of settings, workers with the old and the new ones run side by side.
#[tokio::test]
async fn two_workers_with_different_settings_make_one_session_for_each_cart() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    let workers = [app.start_worker(), app.start_worker_with(&ALL)];
    let mut ids = Vec::new();
    for _ in 0..20 {
        app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
        ids.push(app.cart().await);
    }
    for id in &ids {
        app.ask(id).await;
    }
    for id in &ids {
        finished(&app, id).await;
    }
    let sessions = app.stripe.sessions();
    assert!(sessions.iter().all(|session| session.metadata["link_version"] == "1"), "no key was spent");
    assert_eq!(sessions.len(), 20);
    assert!(app.stripe.carts_with_two_open_sessions().is_empty());
    for worker in workers {
        worker.stop().await;
    }
}

/// A change of the cart between two attempts is no change of settings: the session that was made is
/// closed, and the next has the cart as it is.
#[tokio::test]
async fn a_change_of_the_cart_between_two_attempts_leaves_one_session() {
    for (change, changed) in [
        (json!({"locale": "de"}), (Some("de"), "ada@example.com", 9_998, None)),
        (json!({"externalId": "order-7"}), (None, "ada@example.com", 9_998, Some("order-7"))),
        (json!({"customerEmail": "grace@example.com"}), (None, "grace@example.com", 9_998, None)),
        (json!({"items": [{"name": "Cup", "quantity": 1, "price": 9}]}), (None, "ada@example.com", 900, None)),
    ] {
        let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
        let id = app.cart().await;
        interrupted(&app, &id).await;
        app.patch(&format!("/api/carts/{id}"), &change).await.data(200);
        let worker = app.start_worker();
        eventually("the link is ready", async || {
            app.hurry().await;
            app.ask(&id).await.status == 200
        })
        .await;
        app.idle().await;
        let open = app.stripe.open_sessions();
        let [session] = &open[..] else { panic!("{change}: {open:?}") };
        let order = session.metadata.get("external_id").map(String::as_str);
        let found =
            (session.locale.as_deref(), session.customer_email.as_deref().unwrap(), session.amount_total, order);
        assert_eq!(found, changed, "{change}");
        worker.stop().await;
    }
}

/// The cart as it is shown after the events of its payment arrived.
async fn paid(app: &App, id: &str, session: &str) -> Value {
    let deliveries = app.stripe.pay(session).await.unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.status == Some(200)), "{deliveries:?}");
    app.show(id).await
}

#[tokio::test]
async fn promotion_codes_change_what_is_paid() {
    let app = with(&[("CHECKOUT_PROMOTION_CODES", "on")]).await;
    for (code, paid_value, intents) in [("TENOFF", "89.98", 1), ("FREE", "0", 0)] {
        let id = app.cart().await;
        let session = app.session(&id).await;
        app.stripe.redeem(&session, code).unwrap();
        let cart = paid(&app, &id, &session).await;
        assert_eq!((&cart["status"], &cart["recoveredBy"]), (&json!("recovered"), &json!("payment")), "{code}");
        assert_eq!(cart["paidValue"].as_f64(), exact(paid_value).as_f64(), "{code}");
        assert_eq!(cart["totalValue"], exact("99.98"));
        let made = app.stripe.sessions().into_iter().find(|made| made.id == session).unwrap();
        assert_eq!(made.payment_intent.iter().count(), intents);
    }
    // Nobody has to look at these payments.
    let noted = "select count(*) from stripe_events where reason is not null";
    assert_eq!(sqlx::query_scalar::<_, i64>(noted).fetch_one(&app.pool).await.unwrap(), 0);
}

/// A code that leaves less than Stripe charges is refused on its page, and the cart can still be paid.
#[tokio::test]
async fn a_code_that_leaves_too_little_is_refused() {
    let app = with(&[("CHECKOUT_PROMOTION_CODES", "on")]).await;
    let id = app.cart_of(&a_line(json!({"items": [{"name": "Cup", "quantity": 1, "price": 9}]}))).await;
    let session = app.session(&id).await;
    for code in ["ALMOST", "UNKNOWN"] {
        assert!(app.stripe.redeem(&session, code).is_err(), "{code}");
    }
    assert_eq!(paid(&app, &id, &session).await["paidValue"], exact("9.00"));
}

#[tokio::test]
async fn taxes_are_added_to_what_is_paid() {
    let app = with(&[("CHECKOUT_AUTOMATIC_TAX", "on")]).await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    let cart = paid(&app, &id, &session).await;
    assert_eq!((&cart["status"], &cart["paidValue"]), (&json!("recovered"), &exact("119.98")));
    assert!(app.stripe.redeem(&session, "FREE").is_err(), "there are no promotion codes");
}

/// Without promotion codes and taxes, a total other than the cart's recovers nothing, and neither does
/// one whose lines are not the cart's with them.
#[tokio::test]
async fn only_what_the_settings_allow_may_differ() {
    let free = |session: &mut Session| {
        session.complete();
        (session.amount_discount, session.amount_total) = (session.amount_total, 0);
        (session.payment_status, session.payment_intent) = (PaymentStatus::NoPaymentRequired, None);
    };
    let discounted = |session: &mut Session| {
        session.complete();
        (session.amount_discount, session.amount_total) = (1_000, session.amount_total - 1_000);
    };
    let other = |session: &mut Session| {
        session.complete();
        session.amount_total = 1;
    };
    for (settings, change) in [
        (&[][..], &free as &dyn Fn(&mut Session)),
        (&[], &discounted),
        (&[("CHECKOUT_PHONE", "on")], &discounted),
        (&[("CHECKOUT_PROMOTION_CODES", "on")], &other),
        (&[("CHECKOUT_AUTOMATIC_TAX", "on")], &other),
    ] {
        let app = with(settings).await;
        let id = app.cart().await;
        let session = app.session(&id).await;
        let event = app.stripe.event_of(&session, COMPLETED, change);
        assert_eq!(outcome(&app, &event).await, refused("mismatch", "other_amount"), "{settings:?}");
        assert_eq!(app.show(&id).await["status"], "abandoned");
    }
}

/// The operator is to set Stripe Tax up: the reason is shown, and links come afterwards.
#[tokio::test]
async fn a_tax_that_is_not_set_up_is_reported() {
    const REASON: &str = "You must have a valid head office address to enable automatic tax calculation.";
    let app = with(&[("CHECKOUT_AUTOMATIC_TAX", "on")]).await;
    app.stripe.fail_next(Operation::Create, Fault::RefusedWith(REASON));
    let id = app.cart().await;
    let answer = app.ask(&id).await;
    let message = answer.is_error(502, "PAYMENT_PROVIDER_ERROR")["message"].as_str().unwrap();
    assert!(message.contains(REASON), "{message}");
    app.session(&id).await;
}
