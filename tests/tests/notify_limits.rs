//! NOTIFY is a hint: no write fails because its queue is full.
//!
//! A really full queue has 8 GB, and can be made smaller from Postgres 17 on
//! (`max_notify_queue_pages`). So the queue's failure is played: sessions find a `pg_notify` that
//! lets the COMMIT of its transaction fail with the error of a full queue. This proves that no
//! transaction of the product that writes also notifies, and that everything that waits is found by
//! polling.

use serde_json::json;
use sqlx::{Connection, PgConnection};
use tests::{App, Setup, eventually};

async fn code(app: &App, statement: &'static str) -> Option<String> {
    let mut conn = PgConnection::connect_with(&app.database.as_product().options()).await.unwrap();
    let tried = sqlx::raw_sql(statement).execute(&mut conn).await;
    tried.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()))
}

/// Lets NOTIFY fail at COMMIT, in all sessions of the product.
async fn fill_the_queue(app: &App) {
    app.sql(
        "create schema full_queue;
         grant usage on schema full_queue to public;
         create table full_queue.sent (channel text);
         create function full_queue.pg_notify(channel text, payload text) returns void language plpgsql security definer as
             $$ begin insert into full_queue.sent values (channel); end $$;
         create function full_queue.refuse() returns trigger language plpgsql as
             $$ begin raise exception 'too many notifications in the NOTIFY queue' using errcode = '54000'; end $$;
         create constraint trigger refuse after insert on full_queue.sent
             deferrable initially deferred for each row execute function full_queue.refuse()",
    )
    .await;
    app.sql(&format!("alter database {} set search_path = full_queue, pg_catalog, public", app.database.name)).await;
    let within_a_transaction = "begin; select pg_notify('jobs', 'x')";
    assert_eq!(code(app, within_a_transaction).await, None, "as in Postgres, the statement itself works");
    assert_eq!(code(app, "select pg_notify('jobs', 'x')").await.as_deref(), Some("54000"));
    app.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and usename = 'checkout'",
    )
    .await;
    // Connections that were idle are checked before their next use.
    eventually("the api has new sessions", async || {
        let mut answered = app.get("/readyz").await.status == 200;
        for _ in 0..20 {
            answered &= app.get("/api/carts").await.status == 200;
        }
        answered
    })
    .await;
}

#[tokio::test]
async fn every_write_succeeds_while_the_notify_queue_is_full() {
    let app = Setup::default().without_worker().start().await;
    fill_the_queue(&app).await;
    let worker = app.start_worker();

    // Created, paid.
    let paid = app.cart().await;
    let link = app.ask(&paid).await.data(200);
    app.pay(link["paymentLink"].as_str().unwrap()).await;
    eventually("it is recovered", async || app.show(&paid).await["status"] == "recovered").await;

    // Withdrawn by an expiry, changed and requested again, deleted: each closes a session.
    let expired = app.cart().await;
    app.ask(&expired).await.data(200);
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "expired"})).await.data(200);
    let changed = app.cart().await;
    app.ask(&changed).await.data(200);
    let items = json!({"items": [{"name": "Other", "quantity": 1, "price": 5}]});
    app.patch(&format!("/api/carts/{changed}"), &items).await.data(200);
    app.ask(&changed).await.data(200);
    let deleted = app.cart().await;
    app.ask(&deleted).await.data(200);
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    app.idle().await;
    let open = app.stripe.open_sessions();
    assert_eq!(open.len(), 1, "that of the changed cart: {open:?}");

    // Operators.
    for path in ["/api/queues/payment-links/pause", "/api/queues/payment-links/resume"] {
        app.post(path, &json!({})).await.data(200);
    }
    let waiting = app.cart().await;
    worker.stop().await;
    let job = app.ask_later(&waiting).await["jobId"].as_str().unwrap().to_owned();
    app.post(&format!("/api/jobs/{job}/cancel"), &json!({})).await.data(200);
    app.post(&format!("/api/jobs/{job}/retry"), &json!({})).await.data(200);
    let worker = app.start_worker();
    app.ask(&waiting).await.data(200);
    worker.stop().await;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("select count(*) from jobs where state = 'dead'")
            .fetch_one(&app.pool)
            .await
            .unwrap(),
        0
    );
}

/// A limit that a write itself exceeds.
#[tokio::test]
async fn an_exceeded_limit_of_postgres_is_503() {
    let app = Setup::default().without_worker().start().await;
    let cart = app.cart().await;
    app.sql(
        "create function limited() returns trigger language plpgsql as
             $$ begin raise exception 'a limit' using errcode = 'program_limit_exceeded'; end $$;
         create trigger limited before insert or update on carts for each row
             when (new.customer_name = 'Limit') execute function limited()",
    )
    .await;
    let mut limited = tests::a_cart();
    limited["customerName"] = json!("Limit");
    let (refused, stored) = tokio::join!(app.post("/api/carts", &limited), app.cart());
    let changed = app.patch(&format!("/api/carts/{cart}"), &json!({"customerName": "Limit"})).await;
    for answer in [refused, changed] {
        answer.is_error(503, "UNAVAILABLE");
        assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{answer:?}");
    }
    assert_eq!(app.show(&stored).await["status"], "abandoned", "a request beside it is not refused");
}
