//! Refunds: in the cart, the timeline, analytics, the dashboard and exports.

mod order;

use chrono::TimeDelta;
use sandbox::stripe::Session;
use serde_json::{Value, json};
use tests::{
    App, Setup, a_line,
    events::{charge, event, expired, later, refund, session},
    exact,
};

use crate::{
    dashboard::Operator,
    foreign_events::{COMPLETED, outcome, refused, status},
    timeline::{event_lines, events, start},
};

pub(crate) const REFUNDED: &str = "charge.refunded";

/// A cart of 99.98 USD that was paid, and its session.
pub(crate) async fn paid(app: &App) -> (String, String) {
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.stripe.pay(&link).await.unwrap();
    assert_eq!(status(app, &id).await, "recovered");
    (id, link)
}

pub(crate) async fn refunded(app: &App, id: &str) -> Value {
    app.show(id).await["refundedValue"].clone()
}

/// The timeline from the recovery on.
pub(crate) async fn afterwards(app: &App, id: &str) -> Vec<String> {
    event_lines(app, id).await.into_iter().skip_while(|line| !line.starts_with("recovered")).skip(1).collect()
}

pub(crate) async fn refunds_of_period(app: &App) -> Value {
    app.get("/api/analytics?period=30d").await.data(200)["summary"]["refundedValue"].clone()
}

#[tokio::test]
async fn refunds_are_shown_everywhere_on_the_day_of_recovery() {
    let app = start().start().await;
    let (id, link) = paid(&app).await;
    assert_eq!(refunded(&app, &id).await, Value::Null);
    app.clock.advance(TimeDelta::days(2));
    app.stripe.refund(&link, Some(4_999)).await.unwrap();
    app.clock.advance(TimeDelta::hours(1));
    let cart = app.show(&id).await;
    assert_eq!(
        (&cart["status"], &cart["paidValue"], &cart["refundedValue"]),
        (&json!("recovered"), &exact("99.98"), &exact("49.99"))
    );
    app.stripe.refund(&link, None).await.unwrap();
    assert!(app.stripe.refund(&link, Some(1)).await.is_err(), "nothing is left");
    assert_eq!(refunded(&app, &id).await, exact("99.98"));
    assert_eq!(app.show(&id).await["updatedAt"], json!("2026-03-12T13:00:00Z"));

    assert_eq!(afterwards(&app, &id).await, ["refunded 1", "refunded 1"]);
    let last = events(&app, &id).await.pop().unwrap();
    assert_eq!(last["details"], serde_json::from_str::<Value>(r#"{"amount": 49.99, "currency": "usd"}"#).unwrap());
    assert_eq!(last["summary"], "49.99 USD refunded (link 1)");

    let analytics = app.get("/api/analytics?startDate=2026-03-09").await.data(200);
    assert_eq!(analytics["summary"]["refundedValue"], exact("99.98"));
    let days: Vec<&Value> =
        analytics["dailyStats"].as_array().unwrap().iter().map(|day| &day["refundedValue"]).collect();
    assert_eq!(
        days,
        [&exact("0.00"), &exact("99.98"), &exact("0.00"), &exact("0.00")],
        "the cart was recovered on the 10th"
    );
    let page = Operator::sign_in(&app, "test-key").await.get(&format!("/carts/{id}")).await.text;
    assert!(page.contains("Refunded</dt><dd>") && page.contains("49.99 USD refunded"), "{page}");
    for format in ["ndjson", "csv"] {
        let export = app.get(&format!("/api/carts/export?format={format}")).await.text;
        let found = if format == "csv" {
            export.contains(",99.98,99.98,")
        } else {
            export.contains(r#""refundedValue":99.98"#)
        };
        assert!(found, "{export}");
    }
}

#[tokio::test]
async fn a_refund_that_fails_is_taken_back() {
    let app = start().start().await;
    let (id, link) = paid(&app).await;
    app.clock.advance(TimeDelta::hours(1));
    app.stripe.refund(&link, Some(4_999)).await.unwrap();
    app.clock.advance(TimeDelta::hours(1));
    app.stripe.refund(&link, Some(1_000)).await.unwrap();
    app.clock.advance(TimeDelta::hours(1));
    app.stripe.fail_refund(&link).await.unwrap();
    assert_eq!(refunded(&app, &id).await, exact("49.99"), "its three events count once");
    app.clock.advance(TimeDelta::hours(1));
    app.stripe.refund(&link, Some(500)).await.unwrap();
    assert_eq!(refunded(&app, &id).await, exact("54.99"));
    assert_eq!(afterwards(&app, &id).await, ["refunded 1", "refunded 1", "refund_failed 1", "refunded 1"]);
    assert_eq!(refunds_of_period(&app).await, exact("54.99"));

    // The failure arrives first, and a cancelled refund has failed, too.
    let (id, link) = (app.cart().await, "cs_order");
    let asked = app.session(&id).await;
    let mut completed = session(&asked, &id, "paid");
    completed["payment_intent"] = json!(format!("pi_of_{link}"));
    app.webhook(&event("evt_paid", COMPLETED, &completed)).await.data(200);
    let pending = event("evt_pending", "refund.updated", &refund("re_1", link, 9_998, "pending"));
    assert_eq!(outcome(&app, &pending).await, ("none".to_owned(), None));
    let cancelled = later(event("evt_cancelled", "charge.refund.updated", &refund("re_1", link, 9_998, "canceled")), 9);
    assert_eq!(outcome(&app, &cancelled).await, ("refunded".to_owned(), None));
    app.webhook(&event("evt_back", REFUNDED, &charge(link, &id, 9_998))).await.data(200);
    assert_eq!((refunded(&app, &id).await, afterwards(&app, &id).await), (Value::Null, Vec::new()));
}

#[tokio::test]
async fn a_refund_of_a_payment_that_recovered_nothing_changes_no_revenue() {
    let app = App::new().await;
    let id = app.cart().await;
    let first = app.session(&id).await;
    app.webhook(&event("evt_closed", "checkout.session.expired", &expired(&first, &id))).await.data(200);
    let second = app.session(&id).await;
    for link in [&second, &first] {
        app.webhook(&event(&format!("evt_{link}"), COMPLETED, &session(link, &id, "paid"))).await.data(200);
    }
    let back = event("evt_back", REFUNDED, &charge(&first, &id, 9_998));
    assert_eq!(outcome(&app, &back).await, ("refunded".to_owned(), None));
    assert_eq!(refunded(&app, &id).await, Value::Null);
    assert!(event_lines(&app, &id).await.contains(&"refunded 1".to_owned()));
    app.webhook(&event("evt_half", REFUNDED, &charge(&second, &id, 5_000))).await.data(200);
    assert_eq!(refunded(&app, &id).await, exact("50.00"));

    // Recovered by hand, and paid before the session was closed.
    let id = app.cart().await;
    let link = app.session(&id).await;
    sqlx::query("update carts set status = 'recovered' where id = $1").bind(&id).execute(&app.pool).await.unwrap();
    app.webhook(&event("evt_late", COMPLETED, &session(&link, &id, "paid"))).await.data(200);
    app.webhook(&event("evt_returned", REFUNDED, &charge(&link, &id, 9_998))).await.data(200);
    assert_eq!(refunded(&app, &id).await, Value::Null);
}

#[tokio::test]
async fn refunds_of_another_currency_mode_or_account_change_nothing_and_are_shown() {
    let app = App::new().await;
    let (id, link) = paid(&app).await;
    let intent = app.stripe.sessions()[0].payment_intent.clone().unwrap();
    let cases: [(&str, Value, &str); 9] = [
        ("currency", json!("eur"), "other_currency"),
        ("currency", Value::Null, "other_currency"),
        ("currency", json!("points"), "other_currency"),
        ("livemode", json!(true), "other_livemode"),
        ("amount_refunded", json!(-1), "other_amount"),
        ("amount_refunded", json!("100"), "other_amount"),
        ("amount_refunded", json!(i64::MAX), "other_amount"),
        ("object", json!("refund"), "other_object"),
        ("id", Value::Null, "other_object"),
    ];
    for (n, (field, value, reason)) in cases.into_iter().enumerate() {
        let mut back = charge(&link, &id, 100);
        back["payment_intent"] = json!(intent);
        back[field] = value.clone();
        let event = event(&format!("evt_{n}"), REFUNDED, &back);
        assert_eq!(outcome(&app, &event).await, refused("mismatch", reason), "{field} = {value}");
    }
    let mut back = charge(&link, &id, 100);
    back["payment_intent"] = json!(intent);
    let mut connected = event("evt_connected", REFUNDED, &back);
    connected["account"] = json!("acct_1");
    assert_eq!(outcome(&app, &connected).await, refused("mismatch", "other_account"));
    assert_eq!((refunded(&app, &id).await, afterwards(&app, &id).await), (Value::Null, Vec::new()));
    let page = Operator::sign_in(&app, "test-key").await.get("/").await.text;
    assert!(page.contains("Stripe refund or dispute needs attention: it is of a connected account"), "{page}");

    // The same before the payment is known.
    let id = app.cart().await;
    let link = app.session(&id).await;
    let mut euros = charge(&link, &id, 100);
    euros["currency"] = json!("eur");
    assert_eq!(outcome(&app, &event("evt_euros", REFUNDED, &euros)).await, ("unmatched".to_owned(), None));
    app.webhook(&event("evt_paid", COMPLETED, &session(&link, &id, "paid"))).await.data(200);
    assert_eq!(refunded(&app, &id).await, Value::Null);
    let page = Operator::sign_in(&app, "test-key").await.get("/").await.text;
    assert!(page.contains(&format!("ch_of_{link} of {id}")), "{page}");
}

#[tokio::test]
async fn only_payments_of_the_product_are_refunded() {
    let app = App::new().await;
    let (id, link) = paid(&app).await;
    // Its metadata names the cart and its link, and another PaymentIntent.
    let foreign = event("evt_foreign", REFUNDED, &charge("cs_of_another_tool", &id, 9_998));
    assert_eq!(outcome(&app, &foreign).await, ("unmatched".to_owned(), None));
    let mut without = charge(&link, &id, 9_998);
    without["payment_intent"] = Value::Null;
    assert_eq!(outcome(&app, &event("evt_none", REFUNDED, &without)).await, ("unknown_cart".to_owned(), None));
    assert_eq!((refunded(&app, &id).await, afterwards(&app, &id).await), (Value::Null, Vec::new()));
}

#[tokio::test]
async fn a_deleted_carts_refund_changes_nothing_and_leaves_nothing_personal() {
    let app = App::new().await;
    let (deleted, link) = paid(&app).await;
    let (erased, erased_link) = paid(&app).await;
    app.stripe.refund(&erased_link, Some(100)).await.unwrap();
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    for delivery in app.stripe.refund(&link, None).await.unwrap() {
        assert_eq!(delivery.status, Some(200), "{}", delivery.kind);
    }
    let records = app.get("/api/erasure/export?email=ada@example.com").await.data(200)["records"].clone();
    let row = &records["reversals"][0];
    assert_eq!((&row["cartId"], &row["state"], &row["amountMinor"]), (&json!(erased), &json!("refunded"), &json!(100)));
    app.post("/api/erasure", &json!({"email": "ada@example.com"})).await.data(200);
    assert_eq!(refunds_of_period(&app).await, exact("0.00"));
    app.stripe.refund(&erased_link, None).await.unwrap();
    app.idle().await;
    assert_eq!(tests::leaks::mentions(&app.pool, &tests::OF_THE_SHOPPER).await, Vec::<String>::new());
    let events: i64 = sqlx::query_scalar("select count(*) from cart_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(events, 0);
}

/// Stripe uses hundredths of a króna.
#[tokio::test]
async fn refunds_are_in_the_carts_units() {
    let app = Setup::default().set("CURRENCY", "isk").start().await;
    let items = json!([{"name": "Teapot", "quantity": 1, "price": 700}]);
    let id = app.cart_of(&a_line(json!({"items": items}))).await;
    let link = app.session(&id).await;
    app.stripe.pay(&link).await.unwrap();
    app.stripe.refund(&link, Some(30_000)).await.unwrap();
    assert_eq!(refunded(&app, &id).await, json!(300));
}

#[tokio::test]
async fn the_buttons_of_the_fake_stripe() {
    let app = App::new().await;
    let (id, link) = paid(&app).await;
    for (action, value) in [
        ("refund-half", exact("49.99")),
        ("refund-fails", Value::Null),
        ("dispute", Value::Null),
        ("dispute-lost", exact("99.98")),
        ("dispute-won", Value::Null),
        ("refund", exact("99.98")),
    ] {
        assert_eq!(app.press(&link, action).await, 303, "{action}");
        // Events of the same second have no order at Stripe; here they are moved apart.
        sqlx::query("update payment_reversals set at = at - interval '1 minute'").execute(&app.pool).await.unwrap();
        assert_eq!(refunded(&app, &id).await, value, "{action}");
    }
    assert_eq!(app.press(&link, "refund").await, 409, "nothing is left");
}

/// A live key creates live sessions, whose events are live; test events have no effect on them.
#[tokio::test]
async fn live_payments_and_their_refunds() {
    for key in ["sk_live_1", "rk_live_1"] {
        let app =
            Setup::default().set("STRIPE_SECRET_KEY", key).set("PUBLIC_URL", "https://shop.example").start().await;
        let id = app.cart().await;
        let link = app.session(&id).await;
        assert!(link.starts_with("cs_live_"), "{link}");
        let in_test_mode = |session: &mut Session| {
            session.complete();
            session.livemode = false;
        };
        let test = app.stripe.event_of(&link, COMPLETED, in_test_mode);
        assert_eq!(outcome(&app, &test).await, refused("mismatch", "other_livemode"));
        assert_eq!(status(&app, &id).await, "abandoned");
        app.stripe.pay(&link).await.unwrap();
        assert_eq!(status(&app, &id).await, "recovered");
        let test = app.stripe.event_of(&link, REFUNDED, |session| {
            session.refund(100).unwrap();
            session.livemode = false;
        });
        assert_eq!(outcome(&app, &test).await, refused("mismatch", "other_livemode"));
        assert_eq!(refunded(&app, &id).await, Value::Null);
        app.stripe.refund(&link, Some(100)).await.unwrap();
        assert_eq!(refunded(&app, &id).await, exact("1.00"));
    }
}
