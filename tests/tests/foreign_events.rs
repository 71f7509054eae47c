//! Only our own sessions change carts. Events that do not match are stored with a reason and shown to the operator.

use sandbox::stripe::{Foreign, PaymentStatus, Session, SessionStatus};
use serde_json::{Value, json};
use tests::{
    App, Setup, a_line,
    events::{effect, event, intent, session},
};

pub(crate) const COMPLETED: &str = "checkout.session.completed";

pub(crate) async fn reason(app: &App, event: &str) -> Option<String> {
    sqlx::query_scalar("select reason from stripe_events where id = $1").bind(event).fetch_one(&app.pool).await.unwrap()
}

/// The event's effect, and the reason if it had none.
pub(crate) async fn outcome(app: &App, event: &Value) -> (String, Option<String>) {
    app.webhook(event).await.data(200);
    let id = event["id"].as_str().unwrap();
    (effect(app, id).await, reason(app, id).await)
}

pub(crate) fn refused(effect: &str, reason: &str) -> (String, Option<String>) {
    (effect.to_owned(), Some(reason.to_owned()))
}

pub(crate) async fn link_status(app: &App, cart: &str) -> String {
    let status =
        sqlx::query_scalar("select status from payment_links where cart_id = $1 order by version desc limit 1");
    status.bind(cart).fetch_one(&app.pool).await.unwrap()
}

pub(crate) async fn status(app: &App, cart: &str) -> String {
    app.show(cart).await["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_foreign_event_changes_a_cart_or_a_link() {
    let app = App::new().await;
    for foreign in Foreign::ALL {
        let (linked, never_linked) = (app.cart().await, app.cart().await);
        app.session(&linked).await;
        for (cart, version) in [(&linked, 1), (&linked, 2), (&never_linked, 1)] {
            let event = app.stripe.foreign_event(foreign, cart, version);
            // An intent's metadata names a link whose PaymentIntent is not known yet, so the amount
            // decides.
            let by_metadata = foreign == Foreign::CentIntent && cart == &linked && version == 1;
            let reason = match foreign {
                _ if by_metadata => "other_amount",
                Foreign::PaymentLink | Foreign::Free => "unknown_session",
                _ => "other_session",
            };
            assert_eq!(outcome(&app, &event).await, refused("not_ours", reason), "{foreign:?}");
            assert_eq!(status(&app, cart).await, "abandoned", "{foreign:?}");
        }
        assert_eq!(link_status(&app, &linked).await, "open", "{foreign:?}");
        assert!(app.show(&linked).await["paymentLink"].is_string(), "{foreign:?}");
    }
}

/// The amount matches and the payer chose `client_reference_id`, but the session is not ours.
#[tokio::test]
async fn a_payment_link_of_the_same_amount_is_not_ours() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    let mut object = session("cs_payment_link", &id, "paid");
    object["metadata"] = json!({});
    for kind in [COMPLETED, "checkout.session.async_payment_succeeded", "checkout.session.expired"] {
        let event = event(&format!("evt_{kind}"), kind, &object);
        assert_eq!(outcome(&app, &event).await, refused("not_ours", "unknown_session"), "{kind}");
    }
    assert_eq!((status(&app, &id).await, link_status(&app, &id).await), ("abandoned".to_owned(), "open".to_owned()));
}

#[tokio::test]
async fn every_field_of_our_own_session_must_fit() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    let cases: [(&str, Value, &str); 20] = [
        ("amount_total", json!(50), "other_amount"),
        ("amount_total", json!(9997), "other_amount"),
        ("amount_total", json!(-9998), "other_amount"),
        ("amount_total", json!("9998"), "other_amount"),
        ("amount_total", json!(99.98), "other_amount"),
        ("amount_total", Value::Null, "other_amount"),
        ("currency", json!("eur"), "other_currency"),
        ("currency", json!("jpy"), "other_currency"),
        ("currency", Value::Null, "other_currency"),
        ("mode", json!("setup"), "other_mode"),
        ("mode", json!("subscription"), "other_mode"),
        ("mode", Value::Null, "other_mode"),
        ("payment_status", Value::Null, "payment_status"),
        ("payment_status", json!("no_payment_required"), "payment_status"),
        ("payment_status", json!("bogus"), "payment_status"),
        ("status", json!("open"), "status"),
        ("status", json!(1), "status"),
        ("status", json!(["complete"]), "status"),
        ("object", json!("payment_link"), "other_object"),
        ("livemode", json!(true), "other_livemode"),
    ];
    for (n, (field, value, reason)) in cases.into_iter().enumerate() {
        for kind in [COMPLETED, "checkout.session.async_payment_succeeded"] {
            let mut object = session(&link, &id, "paid");
            object["amount_received"] = json!(9998); // no field of a session
            object[field] = value.clone();
            let event = event(&format!("evt_{n}_{kind}"), kind, &object);
            assert_eq!(outcome(&app, &event).await, refused("mismatch", reason), "{kind}: {field} = {value}");
        }
    }
    let mut live = event("evt_live", COMPLETED, &session(&link, &id, "paid"));
    live["livemode"] = json!(true);
    live["data"]["object"]["livemode"] = json!(true);
    assert_eq!(outcome(&app, &live).await, refused("mismatch", "other_livemode"));
    let unpaid = event("evt_unpaid", "checkout.session.async_payment_succeeded", &session(&link, &id, "unpaid"));
    assert_eq!(outcome(&app, &unpaid).await, refused("mismatch", "payment_status"));
    assert_eq!((status(&app, &id).await, link_status(&app, &id).await), ("abandoned".to_owned(), "open".to_owned()));

    // Metadata and client_reference_id are ignored: the session's id decides.
    let mut ours = event("evt_ours", COMPLETED, &session(&link, &id, "paid"));
    ours["data"]["object"]["metadata"] = Value::Null;
    ours["data"]["object"]["client_reference_id"] = Value::Null;
    assert_eq!(outcome(&app, &ours).await, ("recovered".to_owned(), None));
    assert_eq!(link_status(&app, &id).await, "paid");
}

#[tokio::test]
async fn an_intent_must_be_the_sessions_own() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    for (n, (field, value, reason)) in [
        ("amount_received", json!(1), "other_amount"),
        ("amount_received", Value::Null, "other_amount"),
        ("currency", json!("eur"), "other_currency"),
        ("status", json!("requires_capture"), "status"),
        ("livemode", json!(true), "other_livemode"),
        ("object", json!("charge"), "other_object"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut object = intent(&link, &id);
        object["id"] = json!("pi_other");
        object["amount_total"] = json!(9998); // no field of a PaymentIntent
        object[field] = value;
        let event = event(&format!("evt_{n}"), "payment_intent.succeeded", &object);
        assert_eq!(outcome(&app, &event).await, refused("not_ours", reason), "{field}");
    }
    // The session's event contains its PaymentIntent: from then on no other is accepted, and no
    // other session has it.
    let unpaid = event("evt_unpaid", COMPLETED, &session(&link, &id, "unpaid"));
    assert_eq!(outcome(&app, &unpaid).await, ("processing".to_owned(), None));
    let mut other = intent(&link, &id);
    other["id"] = json!("pi_other");
    let other = event("evt_other", "payment_intent.succeeded", &other);
    assert_eq!(outcome(&app, &other).await, refused("not_ours", "other_payment_intent"));
    let second = app.cart().await;
    let mut borrowed = session(&app.session(&second).await, &second, "paid");
    borrowed["payment_intent"] = json!(format!("pi_of_{link}"));
    let borrowed = event("evt_borrowed", COMPLETED, &borrowed);
    assert_eq!(outcome(&app, &borrowed).await, refused("mismatch", "other_payment_intent"));
    assert_eq!(
        (status(&app, &id).await, status(&app, &second).await),
        ("abandoned".to_owned(), "abandoned".to_owned())
    );
    let ours = event("evt_ours", "payment_intent.succeeded", &intent(&link, &id));
    assert_eq!(outcome(&app, &ours).await, ("recovered".to_owned(), None));
}

/// Stripe Connect: accounts connected to ours have their own sessions and PaymentIntents.
#[tokio::test]
async fn events_of_a_connected_account_are_not_ours() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    let kind = "payment_intent.succeeded";
    let foreign = session("cs_other", &id, "paid");
    for (event, expected) in [
        (event("evt_session", COMPLETED, &foreign), refused("not_ours", "other_account")),
        (event("evt_intent", kind, &intent("cs_other", &id)), refused("not_ours", "other_account")),
        (event("evt_own", COMPLETED, &session(&link, &id, "paid")), refused("mismatch", "other_account")),
        (event("evt_none", kind, &json!({"id": "pi_1"})), ("unknown_cart".to_owned(), None)),
    ] {
        let mut event = event;
        event["account"] = json!("acct_connected");
        assert_eq!(outcome(&app, &event).await, expected);
    }
    assert_eq!((status(&app, &id).await, link_status(&app, &id).await), ("abandoned".to_owned(), "open".to_owned()));
    let mut ours = event("evt_ours", COMPLETED, &session(&link, &id, "paid"));
    ours["account"] = Value::Null;
    assert_eq!(outcome(&app, &ours).await, ("recovered".to_owned(), None));
}

#[tokio::test]
async fn a_session_pays_for_its_own_cart_whatever_it_names() {
    let app = App::new().await;
    let (dear, cheap) = (app.cart().await, app.cart().await);
    app.session(&dear).await;
    let link = app.session(&cheap).await;
    let event = event("evt_1", COMPLETED, &session(&link, &dear, "paid"));
    assert_eq!(outcome(&app, &event).await, ("recovered".to_owned(), None));
    assert_eq!(
        (status(&app, &dear).await, status(&app, &cheap).await),
        ("abandoned".to_owned(), "recovered".to_owned())
    );
    assert_eq!(link_status(&app, &dear).await, "open");
}

/// The previous release stores rows without amount and currency: the cart's values apply.
#[tokio::test]
async fn a_request_without_an_amount_uses_its_carts_total() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    sqlx::query("update payment_links set amount_minor = null, currency = null, livemode = null")
        .execute(&app.pool)
        .await
        .unwrap();
    let mut cheap = session(&link, &id, "paid");
    cheap["amount_total"] = json!(50);
    assert_eq!(outcome(&app, &event("evt_1", COMPLETED, &cheap)).await, refused("mismatch", "other_amount"));
    let paid = event("evt_2", COMPLETED, &session(&link, &id, "paid"));
    assert_eq!(outcome(&app, &paid).await, ("recovered".to_owned(), None));
}

/// Stripe uses hundredths of a króna, which do not exist.
#[tokio::test]
async fn amounts_are_compared_in_stripes_units() {
    let app = Setup::default().set("CURRENCY", "isk").start().await;
    let items = json!([{"name": "Teapot", "quantity": 1, "price": 700}]);
    let id = app.cart_of(&a_line(json!({"items": items}))).await;
    let link = app.session(&id).await;
    let deliveries = app.stripe.pay(&link).await.unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.status == Some(200)), "{deliveries:?}");
    assert_eq!((app.stripe.sessions()[0].amount_total, status(&app, &id).await), (70_000, "recovered".to_owned()));
}

/// The fake Stripe's own event, with every field that Stripe sends.
#[tokio::test]
async fn an_event_as_stripe_sends_it_counts_until_a_field_is_changed() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    type Change = fn(&mut Session);
    let changes: [(&str, Change); 4] = [
        ("other_amount", |session| session.amount_total = 1),
        ("other_currency", |session| session.currency = "eur".to_owned()),
        ("other_livemode", |session| session.livemode = true),
        ("payment_status", |session| session.payment_status = PaymentStatus::NoPaymentRequired),
    ];
    for (reason, change) in changes {
        let event = app.stripe.event_of(&link, COMPLETED, |session| {
            session.complete();
            change(session);
        });
        assert_eq!(outcome(&app, &event).await, refused("mismatch", reason));
    }
    let event = app.stripe.event_of(&link, COMPLETED, Session::complete);
    assert_eq!(outcome(&app, &event).await, ("recovered".to_owned(), None));
    assert_eq!(app.stripe.sessions()[0].status, SessionStatus::Open, "only the events were made up");
}
