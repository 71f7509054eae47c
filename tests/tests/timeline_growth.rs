//! The timeline of a cart is append-only.

use chrono::TimeDelta;
use common::jobs::{DeleteOldRecords, ExpireCarts};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::Method;
use sandbox::stripe::{Fault, Operation, SessionStatus};
use serde_json::json;
use tests::App;

use crate::timeline::{events, run, start};

/// A change of a cart.
#[derive(Debug, Clone)]
enum Step {
    Ask,
    Refused,
    Open,
    Pay,
    PayLater,
    MoneyArrives(bool),
    Refund(i64),
    RefundFails,
    Dispute,
    CloseDispute(bool),
    Patch(&'static str),
    Sql(&'static str),
    Expiry,
    Cleaning,
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![6 => Just("expired"), 6 => Just("abandoned"), 1 => Just("recovered")];
    let step = prop_oneof![
        6 => Just(Step::Ask),
        2 => Just(Step::Refused),
        3 => Just(Step::Open),
        1 => Just(Step::Pay),
        3 => Just(Step::PayLater),
        3 => proptest::bool::weighted(0.2).prop_map(Step::MoneyArrives),
        2 => (1..3_000_i64).prop_map(Step::Refund),
        1 => Just(Step::RefundFails),
        1 => Just(Step::Dispute),
        1 => any::<bool>().prop_map(Step::CloseDispute),
        4 => status.clone().prop_map(Step::Patch),
        2 => status.prop_map(Step::Sql),
        2 => Just(Step::Expiry),
        2 => Just(Step::Cleaning),
        3 => (1..40_i64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..25)
}

async fn take(app: &App, id: &str, step: &Step) {
    let last = |status: SessionStatus| {
        app.stripe.sessions().into_iter().rfind(|session| session.status == status).map(|session| session.id)
    };
    match step {
        Step::Ask => drop(app.ask(id).await),
        Step::Refused => {
            app.stripe.fail_next(Operation::Create, Fault::Refused);
            app.ask(id).await;
        }
        Step::Open => {
            let token: Option<String> = sqlx::query_scalar("select token from recovery_links where cart_id = $1")
                .bind(id)
                .fetch_optional(&app.pool)
                .await
                .unwrap();
            if let Some(token) = token {
                app.send(app.bare_request(Method::POST, &format!("/pay/{token}"))).await;
            }
        }
        // Refused if there is no such session, without an event.
        Step::Pay => {
            if let Some(session) = last(SessionStatus::Open) {
                let _ = app.stripe.pay(&session).await;
            }
        }
        Step::PayLater => {
            if let Some(session) = last(SessionStatus::Open) {
                let _ = app.stripe.pay_later(&session).await;
            }
        }
        Step::MoneyArrives(arrives) => {
            if let Some(session) = last(SessionStatus::Complete) {
                let _ = app.stripe.money_arrives(&session, *arrives).await;
            }
        }
        Step::Refund(_) | Step::RefundFails | Step::Dispute | Step::CloseDispute(_) => {
            if let Some(session) = last(SessionStatus::Complete) {
                let _ = match step {
                    Step::Refund(amount) => app.stripe.refund(&session, Some(*amount)).await,
                    Step::RefundFails => app.stripe.fail_refund(&session).await,
                    Step::CloseDispute(won) => app.stripe.close_dispute(&session, *won).await,
                    _ => app.stripe.dispute(&session, None).await,
                };
            }
        }
        Step::Patch(status) => drop(app.patch(&format!("/api/carts/{id}"), &json!({"status": status})).await),
        Step::Sql(status) => {
            // Like an operator's SQL, but with the test's clock.
            sqlx::query("update carts set status = $1, status_changed_at = $2, updated_at = $2 where id = $3 and status <> 'recovered' and status <> $1")
                .bind(status)
                .bind(app.now())
                .bind(id)
                .execute(&app.pool)
                .await
                .unwrap();
        }
        Step::Expiry => run(app, &ExpireCarts::default()).await,
        Step::Cleaning => run(app, &DeleteOldRecords {}).await,
        Step::Pass(days) => app.clock.advance(TimeDelta::days(*days)),
    }
    app.idle().await;
}

/// Every timeline begins with the previous one.
#[test]
fn a_timeline_only_grows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(async {
        // Far from the database's own time, which manual SQL writes into a row.
        start().set("CART_TTL", "3d").set("PAYMENT_LINK_TTL", "5d").at("2050-03-10T12:00:00Z").start().await
    });
    let config = Config { cases: 12, ..Config::with_source_file(file!()) };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(async {
                let id = app.cart().await;
                let mut before = events(&app, &id).await;
                for step in &steps {
                    app.clock.advance(TimeDelta::seconds(61));
                    take(&app, &id, step).await;
                    let now = events(&app, &id).await;
                    prop_assert!(now.starts_with(&before), "after {step:?}: {before:#?} became {now:#?}");
                    before = now;
                }
                Ok(())
            })
        })
        .unwrap();
}
