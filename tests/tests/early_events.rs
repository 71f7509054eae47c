//! Events that arrive before Stripe's answer to the creation of their session.

use std::sync::Arc;

use common::payment_links::{self, Opening};
use serde_json::json;
use tests::{
    App, Setup, connection,
    events::{event, expired, intent, session},
};

use crate::foreign_events::{COMPLETED, outcome, refused, status};

/// A cart whose session was requested, without Stripe's answer so far.
pub(crate) async fn asked(app: &App) -> String {
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    sqlx::query("update payment_links set attempted_at = now() where cart_id = $1")
        .bind(&id)
        .execute(&app.pool)
        .await
        .unwrap();
    id
}

pub(crate) async fn without_worker() -> App {
    Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await
}

/// Events may arrive before that answer, in any order.
#[tokio::test]
async fn early_events_of_our_own_session_count_in_any_order() {
    let app = without_worker().await;
    for (n, order) in [["session", "intent"], ["intent", "session"]].into_iter().enumerate() {
        let id = asked(&app).await;
        let link = format!("cs_early_{n}");
        for (place, what) in order.into_iter().enumerate() {
            let (kind, object) = match what {
                "session" => (COMPLETED, session(&link, &id, "paid")),
                _ => ("payment_intent.succeeded", intent(&link, &id)),
            };
            let expected = if place == 0 { "recovered" } else { "already_recovered" };
            let event = event(&format!("evt_{n}_{what}"), kind, &object);
            assert_eq!(outcome(&app, &event).await, (expected.to_owned(), None), "{order:?}");
        }
        // Another session with the same metadata has no effect.
        let second = event(&format!("evt_{n}_second"), COMPLETED, &session("cs_second", &id, "paid"));
        assert_eq!(outcome(&app, &second).await, refused("not_ours", "other_session"));
    }
    let id = asked(&app).await;
    let closed = event("evt_expired", "checkout.session.expired", &expired("cs_gone", &id));
    assert_eq!(outcome(&app, &closed).await, ("closed".to_owned(), None));

    // Stripe's answer arrives later, with the same session or another: the link does not change.
    let id = asked(&app).await;
    let unpaid = event("evt_unpaid", COMPLETED, &session("cs_known", &id, "unpaid"));
    assert_eq!(outcome(&app, &unpaid).await, ("processing".to_owned(), None));
    for session_id in ["cs_known", "cs_another"] {
        let opening = Opening {
            cart_id: id.clone(),
            version: 1,
            session_id: session_id.to_owned(),
            url: String::new(),
            session_expires_at: app.now(),
            livemode: Some(false),
        };
        let opened = payment_links::open(&mut connection(&app.pool).await, &[opening], app.now()).await.unwrap();
        assert_eq!(opened, [false]);
    }
    let arrived = "checkout.session.async_payment_succeeded";
    let another = event("evt_another", arrived, &session("cs_another", &id, "paid"));
    assert_eq!(outcome(&app, &another).await, refused("not_ours", "other_session"));
    let known = event("evt_known", arrived, &session("cs_known", &id, "paid"));
    assert_eq!(outcome(&app, &known).await, ("recovered".to_owned(), None));
}

#[tokio::test]
async fn a_request_that_stripe_has_not_seen_has_no_session() {
    let app = without_worker().await;
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    let paid = event("evt_1", COMPLETED, &session("cs_1", &id, "paid"));
    assert_eq!(outcome(&app, &paid).await, refused("not_ours", "other_session"));
    let paid = event("evt_2", "payment_intent.succeeded", &intent("cs_1", &id));
    assert_eq!(outcome(&app, &paid).await, refused("not_ours", "other_session"));
    assert_eq!(status(&app, &id).await, "abandoned");
}

#[tokio::test]
async fn foreign_events_that_race_an_early_one_change_nothing() {
    let app = Arc::new(without_worker().await);
    for round in 0..5 {
        let id = asked(&app).await;
        let mut other_amount = session("cs_cheap", &id, "paid");
        other_amount["amount_total"] = json!(50);
        let mut payers_choice = session("cs_link", &id, "paid");
        payers_choice["metadata"] = json!({});
        let ours = session(&format!("cs_ours_{round}"), &id, "paid");
        let sent = [other_amount, payers_choice, ours].into_iter().enumerate().map(|(n, object)| {
            let (app, event) = (app.clone(), event(&format!("evt_{round}_{n}"), COMPLETED, &object));
            tokio::spawn(async move { outcome(&app, &event).await })
        });
        let outcomes = futures_util::future::join_all(sent).await;
        let effects: Vec<String> = outcomes.into_iter().map(|outcome| outcome.unwrap().0).collect();
        assert_eq!(effects, ["not_ours", "not_ours", "recovered"]);
        let known: String = sqlx::query_scalar("select session_id from payment_links where cart_id = $1")
            .bind(&id)
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(known, format!("cs_ours_{round}"));
    }
}
