//! An erasure removes all data of one person and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use common::personal_data::{fields::TABLES, treatment::Content};
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{
    App, Setup,
    leaks::{StoredColumn, columns, mentions},
    lives::{GRACE, ZEBEDEE, create, live, plant_old_errors},
};

async fn erase(app: &App, email: &str) -> Value {
    app.post("/api/erasure", &json!({"email": email})).await.data(200)
}

async fn exported(app: &App, email: &str) -> Value {
    app.get(&format!("/api/erasure/export?email={email}")).await.data(200)
}

async fn timeline_length(app: &App, carts: &[String]) -> usize {
    let mut events = 0;
    for cart in carts {
        let timeline = app.get(&format!("/api/carts/{cart}/timeline")).await.data(200);
        events += timeline["events"].as_array().unwrap().len();
    }
    events
}

/// The analytics, and a count of the carts.
async fn analytics_and_count(app: &App) -> (Value, Value) {
    let summary = app.get("/api/analytics?period=30d").await.data(200)["summary"].clone();
    let (abandoned, recovered, value, won, paid, paid_value, average): (i64, i64, i64, i64, i64, i64, Option<i64>) = sqlx::query_as(
        "select count(*), count(recovered_at), coalesce(sum(total_minor), 0)::bigint,
                coalesce(sum(total_minor) filter (where recovered_at is not null), 0)::bigint,
                count(*) filter (where status_reason = 'payment'),
                coalesce(sum(total_minor) filter (where status_reason = 'payment'), 0)::bigint,
                trunc(sum(extract(epoch from recovered_at - abandoned_at)) / nullif(count(recovered_at), 0))::bigint from carts",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    let rate = if abandoned == 0 { 0.0 } else { (recovered as f64 * 1000.0 / abandoned as f64).round() / 10.0 };
    let money = |minor: i64| format!("{}.{:02}", minor / 100, minor % 100);
    let counted = format!(
        r#"{{"totalAbandoned":{abandoned},"totalRecovered":{recovered},"recoveryRate":{rate:.1},"totalAbandonedValue":{},"totalRecoveredValue":{},
           "cohortRecovered":{recovered},"cohortRecoveryRate":{rate:.1},"averageRecoverySeconds":{},"recoveredByPayment":{paid},"recoveredByPaymentValue":{},"refundedValue":0.00}}"#,
        money(value),
        money(won),
        json!(average),
        money(paid_value),
    );
    (summary, serde_json::from_str(&counted).unwrap())
}

async fn analytics_are_exact(app: &App) {
    let (analytics, count) = analytics_and_count(app).await;
    assert_eq!(analytics, count);
}

#[tokio::test]
async fn an_erasure_removes_one_person_and_nobody_else() {
    let app = App::new().await;
    let (grace, zebedee) = (live(&app, &GRACE).await, live(&app, &ZEBEDEE).await);
    plant_old_errors(&app, &zebedee, &ZEBEDEE).await;
    let of_zebedee: Vec<&str> =
        ZEBEDEE.words.iter().copied().chain(zebedee.addresses.iter().map(String::as_str)).collect();
    assert!(mentions(&app.pool, &of_zebedee).await.len() > 10, "this test looks for what is there");
    every_personal_field_is_in_use(&app).await;
    let events = timeline_length(&app, &zebedee.carts).await;
    let of_grace = exported(&app, GRACE.email).await["records"].clone();
    analytics_are_exact(&app).await;

    let receipt = erase(&app, ZEBEDEE.other_spelling).await;
    let removed =
        json!({"carts": 5, "timeline": events, "paymentLinks": 4, "recoveryLinks": 3, "jobs": 3, "idempotencyKeys": 1});
    assert_eq!(receipt["removed"], removed);
    app.idle().await;
    assert_eq!(mentions(&app.pool, &of_zebedee).await, Vec::<String>::new());
    for cart in &zebedee.carts {
        app.get(&format!("/api/carts/{cart}")).await.is_error(404, "NOT_FOUND");
        app.get(&format!("/api/carts/{cart}/timeline")).await.is_error(404, "NOT_FOUND");
    }
    let events_left: i64 = sqlx::query_scalar("select count(*) from cart_events where cart_id = any ($1)")
        .bind(&zebedee.carts)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(events_left, 0);
    assert_eq!(app.send(app.bare_request(Method::GET, &zebedee.recovery_path)).await.status, 410);
    let open: Vec<Option<String>> =
        app.stripe.open_sessions().into_iter().map(|session| session.customer_email).collect();
    assert_eq!(open, [Some(GRACE.other_spelling.to_owned())], "nobody can pay for what is gone");

    // Repeating the original request does not restore the cart.
    create(&app, &ZEBEDEE.key(), &ZEBEDEE.cart()).await.is_error(404, "NOT_FOUND");
    create(&app, &ZEBEDEE.key(), &GRACE.cart()).await.is_error(422, "VALIDATION_ERROR");

    let mut nothing = receipt["removed"].clone();
    nothing.as_object_mut().unwrap().values_mut().for_each(|count| *count = json!(0));
    assert_eq!(erase(&app, ZEBEDEE.email).await["removed"], nothing, "a second time there is nothing");
    let shown = app.get(&format!("/api/erasure/{}", receipt["id"].as_str().unwrap())).await.data(200);
    assert_eq!(shown, receipt);
    assert_eq!(exported(&app, ZEBEDEE.email).await["pagination"]["total"], json!(0));

    assert_eq!(exported(&app, GRACE.email).await["records"], of_grace);
    assert_eq!(app.get(&format!("/api/carts?email={}", GRACE.email)).await.data(200)["pagination"]["total"], json!(5));
    assert_eq!(create(&app, &GRACE.key(), &GRACE.cart()).await.data(201)["id"], json!(grace.paid));
    analytics_are_exact(&app).await;
}

/// A field that no test fills could be missed by every erasure.
async fn every_personal_field_is_in_use(app: &App) {
    for table in TABLES {
        for column in table.columns.iter().filter(|column| matches!(column.content, Content::Personal { .. })) {
            let name = column.name;
            let query = format!("select exists (select from {} where {name}::text <> '[]')", table.name);
            let filled: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&app.pool).await.unwrap();
            assert!(filled, "{}.{name} is personal, and empty in this test", table.name);
        }
    }
}

#[tokio::test]
async fn deleting_all_carts_leaves_no_personal_data() {
    let app = App::new().await;
    let zebedee = live(&app, &ZEBEDEE).await;
    for cart in &zebedee.carts {
        app.delete(&format!("/api/carts/{cart}")).await.data(200);
    }
    app.idle().await;
    let words: Vec<&str> = ZEBEDEE.words.iter().copied().chain(zebedee.addresses.iter().map(String::as_str)).collect();
    assert_eq!(mentions(&app.pool, &words).await, Vec::<String>::new());
    assert!(app.stripe.open_sessions().is_empty());
    let whole_hashes: i64 =
        sqlx::query_scalar("select count(*) from idempotency_keys where octet_length(body_hash) > 2")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!(whole_hashes, 0, "nobody can hold a guess against it");
    create(&app, &ZEBEDEE.key(), &ZEBEDEE.cart()).await.is_error(404, "NOT_FOUND");
    create(&app, &ZEBEDEE.key(), &GRACE.cart()).await.is_error(422, "VALIDATION_ERROR");
    analytics_are_exact(&app).await;
    let removed = erase(&app, ZEBEDEE.email).await["removed"].clone();
    assert!(removed.as_object().unwrap().values().all(|count| *count == json!(0)), "{removed}");
}

/// An address with a domain in Unicode, and one with misplaced dots, which others write in quotes.
#[tokio::test]
async fn all_spellings_of_a_mailbox_are_erased_at_once() {
    let app = Setup::default().without_worker().start().await;
    let store = async |email: &str| {
        let mut cart = GRACE.cart();
        cart["customerEmail"] = json!(email);
        app.cart_of(&cart).await
    };
    for (spellings, other) in [
        (
            ["jörg@müller.example", "Jörg@müller.example", "jörg@xn--mller-kva.example", "JÖRG@MÜLLER.example"],
            "jorg@müller.example",
        ),
        (
            [
                "\"hana..s.\"@docomo.ne.jp",
                "hana..s.@docomo.ne.jp",
                "HANA..S.@docomo.ne.jp",
                "\"hana..s\\.\"@docomo.ne.jp",
            ],
            "hana.s.@docomo.ne.jp",
        ),
    ] {
        for spelling in spellings {
            let kept = store(other).await;
            for spelling in spellings {
                store(spelling).await;
            }
            assert_eq!(erase(&app, spelling).await["removed"]["carts"], json!(4), "{spelling}");
            assert_eq!(app.get("/api/carts").await.data(200)["carts"][0]["id"], json!(kept), "{spelling}");
            app.delete(&format!("/api/carts/{kept}")).await.data(200);
        }
    }
}

/// Stripe repeats an address in its refusal.
#[tokio::test]
async fn an_address_refused_by_stripe_is_erased_too() {
    let app = App::new().await;
    let mut cart = ZEBEDEE.cart();
    cart["customerEmail"] = json!("zebedee@qüill.example");
    let id = app.cart_of(&cart).await;
    app.stripe.fail_next(Operation::Create, Fault::Repeats { status: 400 });
    app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    app.idle().await;
    let jobs = app.get("/api/jobs?state=dead").await.data(200);
    let error = jobs["jobs"][0]["lastError"].as_str().unwrap();
    assert!(error.starts_with("Stripe refused it: Not possible with Bearer …"), "{error}");
    let receipt = erase(&app, "ZEBEDEE@qüill.example").await;
    assert_eq!(receipt["removed"]["carts"], json!(1));
    assert_eq!((&receipt["removed"]["jobs"], &receipt["removed"]["paymentLinks"]), (&json!(1), &json!(1)));
    let job = &app.get("/api/jobs?state=dead").await.data(200)["jobs"][0];
    assert_eq!(job["lastError"], "erased");
    let history = app.get(&format!("/api/jobs/{}", job["id"].as_str().unwrap())).await.data(200)["history"].clone();
    assert_eq!((&history[0]["attempt"], &history[0]["error"]), (&json!(1), &json!("erased")));
    assert_eq!(mentions(&app.pool, &["zebedee", "qüill", "xn--qill", "kaleidoscope"]).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_export_of_a_person_is_complete() {
    let app = App::new().await;
    live(&app, &GRACE).await;
    let zebedee = live(&app, &ZEBEDEE).await;
    let export = exported(&app, ZEBEDEE.other_spelling).await;
    assert_eq!(export["email"], ZEBEDEE.other_spelling);
    let text = export.to_string();
    assert!(GRACE.words.iter().all(|word| !text.to_lowercase().contains(word)), "{text}");

    let records = &export["records"];
    let of = |kind: &str| records[kind].as_array().unwrap_or_else(|| panic!("{kind}")).clone();
    let ids: BTreeSet<String> = of("carts").iter().map(|cart| cart["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, zebedee.carts.iter().cloned().collect());
    let paid = of("carts").into_iter().find(|cart| cart["id"] == json!(zebedee.paid)).unwrap();
    let shown = app.show(&zebedee.paid).await;
    for field in ["customerEmail", "customerName", "items", "currency", "status"] {
        assert_eq!(paid[field], shown[field], "{field}");
    }
    assert_eq!(paid["totalMinor"], json!(9998));
    let same_time = |text: &Value| text.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(same_time(&paid["recoveredAt"]), same_time(&shown["recoveredAt"]));

    // The timeline equals the one shown for each cart.
    for cart in &zebedee.carts {
        let timeline = app.get(&format!("/api/carts/{cart}/timeline")).await.data(200);
        let kinds: Vec<&Value> = timeline["events"].as_array().unwrap().iter().map(|event| &event["kind"]).collect();
        let timeline = of("timeline");
        let exported: Vec<&Value> =
            timeline.iter().filter(|event| event["cartId"] == json!(cart)).map(|event| &event["kind"]).collect();
        assert_eq!(exported, kinds);
    }
    for address in &zebedee.addresses {
        assert!(!text.contains(address.as_str()), "a link that may work: {address}");
    }
    let counts: BTreeMap<&str, usize> =
        ["paymentLinks", "recoveryLinks", "idempotencyKeys"].map(|kind| (kind, of(kind).len())).into();
    assert_eq!(counts, [("paymentLinks", 4), ("recoveryLinks", 3), ("idempotencyKeys", 1)].into());
    assert!(of("jobs").iter().any(|job| job["state"] == "dead" && job["payload"]["cartId"].is_string()));
    assert!(of("stripeEvents").iter().any(|event| event["effect"] == "recovered"));

    // The pages together are complete.
    let (mut by_page, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let path = format!("/api/erasure/export?email={}&limit=2&cursor={cursor}", ZEBEDEE.email);
        let page = app.get(&path).await.data(200);
        let carts = page["records"]["carts"].as_array().unwrap().clone();
        assert!(carts.len() <= 2);
        by_page.extend(carts.iter().map(|cart| cart["id"].as_str().unwrap().to_owned()));
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(by_page, ids);
}

/// A column missing from the list would be missed by every erasure.
#[tokio::test]
async fn every_column_with_personal_data_is_listed() {
    const TELLS_NOTHING: [&str; 9] = [
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "date",
        "uuid",
        "timestamp with time zone",
        "double precision",
    ];
    let app = Setup::default().without_worker().start().await;
    let stored = columns(&app.pool).await;
    let mut unknown = Vec::new();
    for StoredColumn { table, column, kind } in &stored {
        let listed = TABLES.iter().find(|listed| listed.name == table);
        let all = listed.is_some_and(|listed| listed.rows.is_some());
        let known = listed.is_some_and(|listed| listed.columns.iter().any(|listed| listed.name == column));
        if !known && (all || listed.is_none() || !TELLS_NOTHING.contains(&kind.as_str())) {
            unknown.push(format!("{table}.{column} ({kind})"));
        }
    }
    assert!(unknown.is_empty(), "say in common/src/personal_data/fields.rs whether these are personal: {unknown:#?}");
    let there: BTreeSet<(&str, &str)> = stored.iter().map(|stored| (&*stored.table, &*stored.column)).collect();
    for table in TABLES {
        assert!(stored.iter().any(|stored| stored.table == table.name), "there is no table {}", table.name);
        for column in table.columns {
            assert!(there.contains(&(table.name, column.name)), "there is no {}.{}", table.name, column.name);
        }
    }
}

#[tokio::test]
async fn malformed_addresses_are_refused() {
    let app = Setup::default().without_worker().start().await;
    app.cart().await;
    for (body, message) in [
        (json!({}), "email is required"),
        (json!({"email": null}), "email is required"),
        (json!({"email": 7}), "email must be an e-mail address"),
        (json!({"email": "  "}), "email must be an e-mail address"),
        (json!({"email": "ada@example.com\u{0}"}), "email must be an e-mail address"),
        (json!({"email": "Erased@erased.invalid"}), "email is of carts whose shopper was taken out already"),
        (json!([]), "The body must be an object"),
    ] {
        let refused = app.post("/api/erasure", &body).await;
        assert_eq!(refused.is_error(422, "VALIDATION_ERROR")["message"], message, "{body}");
    }
    app.get("/api/erasure/export").await.is_error(400, "BAD_REQUEST");
    app.get("/api/erasure/export?email=%00").await.is_error(400, "BAD_REQUEST");
    app.get("/api/erasure/export?email=a@b.example&cursor=x").await.is_error(400, "BAD_REQUEST");
    for id in ["erasure_x", "erasure_00000000000000000000000000", "cart_00000000000000000000000000", "%00"] {
        app.get(&format!("/api/erasure/{id}")).await.is_error(404, "NOT_FOUND");
    }
    assert_eq!(erase(&app, " ADA@example.com ").await["removed"]["carts"], json!(1), "as it would be stored");
}
