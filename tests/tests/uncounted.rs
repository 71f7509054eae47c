//! The operator's list of payments that did not count.

use sandbox::stripe::Foreign;
use serde_json::json;
use tests::{
    App,
    events::{effect, event, expired, session},
};
use worker::{Check, CheckStatus};

use crate::{
    dashboard::Operator,
    doctor::checks,
    foreign_events::{COMPLETED, link_status, outcome, reason, refused},
};

async fn page(app: &App) -> String {
    Operator::sign_in(app, "test-key").await.get("/").await.text
}

async fn doctor(app: &App) -> Check {
    let found = checks(app, &app.clock).await;
    found.into_iter().find(|check| check.name == "payments").unwrap()
}

/// Pays the session without an event, and deletes its cart; returns the session.
async fn paid_and_deleted(app: &App) -> String {
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    app.stripe.pay(&link).await.unwrap();
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    app.idle().await;
    // The worker found out when closing the session.
    assert_eq!(link_status(app, &id).await, "paid");
    let answer = format!("answer:{link}");
    assert_eq!((effect(app, &answer).await, reason(app, &answer).await), refused("mismatch", "cart_deleted"));
    link
}

#[tokio::test]
async fn payments_that_did_not_count_are_shown() {
    let app = App::new().await;
    // Sessions of other tools on the account are ignored.
    for (n, object) in [session("cs_1", "order 7", "paid"), json!({"id": "cs_2"}), json!(null)].iter().enumerate() {
        let event = event(&format!("evt_{n}"), COMPLETED, object);
        assert_eq!(outcome(&app, &event).await, ("unknown_cart".to_owned(), None));
    }
    assert!(!page(&app).await.contains("foreign Stripe payment"));
    let well = doctor(&app).await;
    assert_eq!(well.status, CheckStatus::Ok);
    assert!(!well.text.contains("every Stripe event"), "three events were of other sessions: {}", well.text);

    let id = app.cart().await;
    let foreign = app.stripe.foreign_event(Foreign::PaymentLink, &id, 1);
    for _ in 0..3 {
        app.webhook(&foreign).await.data(200);
    }
    let page = page(&app).await;
    assert!(page.contains("1 foreign Stripe payment named a cart"), "{page}");
    for shown in ["id", "/data/object/id"].map(|path| foreign.get(path).or_else(|| foreign.pointer(path))) {
        assert!(page.contains(shown.unwrap().as_str().unwrap()), "{page}");
    }
    assert!(page.contains(&id) && page.contains("it is about no session of this cart"), "{page}");
    let found = doctor(&app).await;
    assert_eq!(found.status, CheckStatus::Warn);
    assert!(found.text.contains("1 foreign payment") && found.text.contains("unknown_session"), "{}", found.text);
}

/// A payment whose event did not arrive before the cart was deleted.
#[tokio::test]
async fn a_payment_of_a_deleted_cart_is_shown_once() {
    let app = App::new().await;
    let link = paid_and_deleted(&app).await;
    let shown = format!("{link} of cart_");
    for text in [page(&app).await, doctor(&app).await.text] {
        assert!(text.contains(&shown) && !text.contains("answer:"), "{text}");
    }
    // The events arrive late: still one payment.
    for kind in [COMPLETED, "payment_intent.succeeded"] {
        let event = app.stripe.event_of(&link, kind, |_| ());
        assert_eq!(outcome(&app, &event).await, refused("unknown_cart", "cart_deleted"), "{kind}");
    }
    let (page, doctor) = (page(&app).await, doctor(&app).await.text);
    assert_eq!(page.matches("its cart was deleted").count(), 1, "{page}");
    assert!(page.contains(&shown) && page.contains("(event evt_") && !page.contains("answer:"), "{page}");
    assert!(doctor.contains("1 payments, refunds or disputes need attention") && doctor.contains(&shown), "{doctor}");
}

/// Anyone who opens a Stripe Payment Link can create as many of these as they like.
#[tokio::test]
async fn foreign_payments_hide_no_payment_of_ours() {
    let app = App::new().await;
    let mut own = Vec::new();
    for _ in 0..6 {
        own.push(paid_and_deleted(&app).await);
    }
    let id = app.cart().await;
    for _ in 0..30 {
        app.webhook(&app.stripe.foreign_event(Foreign::PaymentLink, &id, 1)).await.data(200);
    }
    let (page, doctor) = (page(&app).await, doctor(&app).await.text);
    for text in [&page, &doctor] {
        assert!(own[1..].iter().all(|link| text.contains(link)) && !text.contains(&own[0]), "the newest five: {text}");
    }
    assert!(page.contains("1 more of the last seven days") && page.contains("30 foreign Stripe payments"), "{page}");
    assert!(doctor.contains("6 payments") && doctor.contains("30 foreign payments"), "{doctor}");
}

/// Only the account itself can write metadata, so such a payment is always listed.
#[tokio::test]
async fn a_session_whose_metadata_names_a_cart_is_shown() {
    let app = App::new().await;
    let id = app.cart().await;
    let event = app.stripe.foreign_event(Foreign::OtherCurrency, &id, 1);
    assert_eq!(outcome(&app, &event).await, refused("not_ours", "other_session"));
    let shown = format!("{} of {id}", event.pointer("/data/object/id").unwrap().as_str().unwrap());
    let (page, doctor) = (page(&app).await, doctor(&app).await.text);
    assert!(page.contains("its metadata names this cart") && page.contains(&shown), "{page}");
    assert!(!page.contains("foreign Stripe payment"), "{page}");
    assert!(doctor.contains("other_session") && doctor.contains(&shown), "{doctor}");
}

#[tokio::test]
async fn a_second_payment_of_a_cart_is_shown() {
    let app = App::new().await;
    let id = app.cart().await;
    let first = app.session(&id).await;
    app.webhook(&event("evt_closed", "checkout.session.expired", &expired(&first, &id))).await.data(200);
    let second = app.session(&id).await;
    let paid = |link: &str, id: &str| event(&format!("evt_{link}"), COMPLETED, &session(link, id, "paid"));
    assert_eq!(outcome(&app, &paid(&second, &id)).await, ("recovered".to_owned(), None));
    assert_eq!(outcome(&app, &paid(&first, &id)).await, refused("already_recovered", "paid_twice"));
    assert!(page(&app).await.contains(&format!("{first} of {id}")));

    // Recovered by hand, and paid before the worker had closed the session.
    let by_hand = app.cart().await;
    let link = app.session(&by_hand).await;
    app.stripe.send_webhooks_to(None);
    app.stripe.pay(&link).await.unwrap();
    app.patch(&format!("/api/carts/{by_hand}"), &json!({"status": "recovered"})).await.data(200);
    app.idle().await;
    let late = app.stripe.event_of(&link, COMPLETED, |_| ());
    assert_eq!(outcome(&app, &late).await, ("already_recovered".to_owned(), None), "the worker had told of it");
    let (page, doctor) = (page(&app).await, doctor(&app).await.text);
    assert_eq!(page.matches("its cart was recovered before").count(), 2, "{page}");
    for text in [&page, &doctor] {
        assert!(text.contains(&format!("{link} of {by_hand}")) && !text.contains("answer:"), "{text}");
    }
}

/// A job that Stripe refused had one attempt.
#[tokio::test]
async fn dead_jobs_show_their_real_attempts() {
    let app = App::new().await;
    let dead =
        "insert into jobs (id, queue, kind, payload, max_attempts, attempts, state, run_at, finished_at, last_error)
                values (gen_random_uuid(), 'payment-links', 'create_payment_link', '{}', 10, 1, 'dead', now(), now(),
                        'Stripe refused it: no')";
    sqlx::query(dead).execute(&app.pool).await.unwrap();
    let page = page(&app).await;
    assert!(page.contains("1 dead job") && !page.contains("Given up after all attempts"), "{page}");
}
