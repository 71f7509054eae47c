use std::collections::HashSet;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{App, Setup, UNKNOWN_FIELD, a_cart, shown_cart};

#[tokio::test]
async fn a_cart_is_stored_and_returned_per_contract() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let created = app.post("/api/carts", &a_cart()).await.data(201);
    let id = created["id"].as_str().unwrap();
    assert!(id.starts_with("cart_") && id.len() == "cart_".len() + 26, "{id}");
    let shown = app.show(id).await;
    assert_eq!(created, shown);
    assert_eq!(shown, shown_cart(id, "2026-03-01T10:00:00Z"));
}

#[tokio::test]
async fn money_is_exact_from_json_to_postgres_and_back() {
    let app = Setup::default().without_worker().start().await;
    let answer = app
        .send(app.request(Method::POST, "/api/carts").header("content-type", "application/json").body(
            r#"{"customerEmail":"a@b.example","customerName":"A","items":[
                {"name":"a","quantity":3,"price":0.1},{"name":"b","quantity":9999,"price":999999.99}]}"#,
        ))
        .await;
    assert_eq!(answer.status, 201);
    // Compared as text: a parser could hide rounding by a float.
    assert!(answer.text.contains(r#""totalValue":9998999900.31,"#), "{}", answer.text);
    assert!(answer.text.contains(r#""items":[{"name":"a","quantity":3,"price":0.10}"#), "{}", answer.text);
    let again = app.get(&format!("/api/carts/{}", answer.body["data"]["id"].as_str().unwrap())).await;
    assert_eq!(again.text, answer.text);
}

#[tokio::test]
async fn currencies_without_and_with_three_decimals() {
    let yen = Setup::default().set("CURRENCY", "JPY").without_worker().start().await;
    let mut cart = a_cart();
    let refused = yen.post("/api/carts", &cart).await;
    assert_eq!(refused.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "items[0].price");
    cart["items"][0]["price"] = json!(500);
    let made = yen.post("/api/carts", &cart).await;
    assert!(made.text.contains(r#""totalValue":1000,"currency":"jpy""#), "{}", made.text);
    let dinar = Setup::default().set("CURRENCY", "kwd").without_worker().start().await;
    cart["items"][0]["price"] = serde_json::from_str("1.235").unwrap();
    assert!(dinar.post("/api/carts", &cart).await.text.contains(r#""totalValue":2.470,"currency":"kwd""#));
}

#[tokio::test]
async fn bounds_are_kept_on_both_sides() {
    let app = Setup::default().without_worker().start().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut cart = a_cart();
        change(&mut cart);
        cart
    };
    let item = |n: usize| json!({"name": format!("item {n}"), "quantity": 1, "price": 1});
    let good: [Value; 9] = [
        with(&|cart| cart["items"] = (0..1_000).map(item).collect()),
        with(&|cart| cart["items"][0]["quantity"] = json!(1_000_000)),
        with(&|cart| cart["items"][0]["price"] = json!(4_999_999_999.99)),
        with(&|cart| cart["customerName"] = Value::Null),
        with(&|cart| cart["items"][0]["price"] = json!(0)),
        with(&|cart| cart["customerName"] = json!("é".repeat(200))),
        with(&|cart| cart["customerName"] = json!(format!("  {}  ", "n".repeat(200)))),
        with(&|cart| cart["abandonedAt"] = json!("2020-02-29T23:59:59+14:00")),
        with(&|cart| cart[UNKNOWN_FIELD] = json!({"is": "ignored"})),
    ];
    for body in good {
        app.post("/api/carts", &body).await.data(201);
    }
    let bad: [(&str, Value); 16] = [
        ("items", with(&|cart| cart["items"] = (0..1_001).map(item).collect())),
        ("items", with(&|cart| cart["items"] = json!([]))),
        ("items", with(&|cart| cart["items"] = json!("Teapot"))),
        ("items[0].quantity", with(&|cart| cart["items"][0]["quantity"] = json!(1_000_001))),
        ("items[0].quantity", with(&|cart| cart["items"][0]["quantity"] = json!(0))),
        ("items[0].quantity", with(&|cart| cart["items"][0]["quantity"] = json!("2"))),
        ("items[0].price", with(&|cart| cart["items"][0]["price"] = json!(5_000_000_000_i64))),
        ("items[0].price", with(&|cart| cart["items"][0]["price"] = json!(-0.01))),
        ("items[0].price", with(&|cart| cart["items"][0]["price"] = json!(0.001))),
        ("items[0].price", with(&|cart| cart["items"][0]["price"] = json!("49.99"))),
        ("items[0].name", with(&|cart| cart["items"][0]["name"] = json!(" "))),
        ("customerName", with(&|cart| cart["customerName"] = json!("é".repeat(201)))),
        ("customerName", with(&|cart| cart["customerName"] = json!("a\u{0}b"))),
        ("customerEmail", with(&|cart| cart["customerEmail"] = json!("Ada <ada@example.com>"))),
        ("customerEmail", with(&|cart| cart["customerEmail"] = Value::Null)),
        ("abandonedAt", with(&|cart| cart["abandonedAt"] = json!("2999-01-01T00:00:00Z"))),
    ];
    for (field, body) in bad {
        let answer = app.post("/api/carts", &body).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], json!(field), "{body}");
    }
}

#[tokio::test]
async fn only_allowed_status_changes_succeed() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let statuses = ["abandoned", "recovered", "expired"];
    for from in statuses {
        for to in statuses {
            let id = app.cart().await;
            app.patch(&format!("/api/carts/{id}"), &json!({"status": from})).await.data(200);
            let before = app.show(&id).await;
            app.clock.advance(TimeDelta::seconds(1));
            let answer = app.patch(&format!("/api/carts/{id}"), &json!({"status": to})).await;
            if from == to {
                assert_eq!(answer.data(200), before, "a status onto itself changes nothing");
            } else if from == "recovered" {
                answer.is_error(409, "CONFLICT");
                assert_eq!(app.show(&id).await, before);
            } else {
                let cart = answer.data(200);
                let now = json!(app.now());
                assert_eq!(cart["status"], json!(to));
                assert_eq!(cart["recoveredAt"], if to == "recovered" { now.clone() } else { Value::Null });
                assert_eq!(cart["expiredAt"], if to == "expired" { now.clone() } else { Value::Null });
                assert_eq!(cart["updatedAt"], now);
            }
        }
    }
}

#[tokio::test]
async fn recovery_can_be_reported_later_but_not_invented() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let mut body = a_cart();
    body["abandonedAt"] = json!("2026-02-01T10:00:00Z");
    let id = app.cart_of(&body).await;
    let path = format!("/api/carts/{id}");
    for refused in ["2026-01-31T10:00:00Z", "2026-03-01T10:01:00Z", "yesterday"] {
        let answer = app.patch(&path, &json!({"status": "recovered", "recoveredAt": refused})).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "recoveredAt");
    }
    app.patch(&path, &json!({"status": "expired", "recoveredAt": "2026-02-05T10:00:00Z"}))
        .await
        .is_error(422, "VALIDATION_ERROR");
    let cart = app.patch(&path, &json!({"status": "recovered", "recoveredAt": "2026-02-05T10:00:00Z"})).await.data(200);
    assert_eq!(cart["recoveredAt"], "2026-02-05T10:00:00Z");
}

#[tokio::test]
async fn the_list_is_newest_first_with_exact_totals_by_page_and_by_cursor() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let mut ids = Vec::new();
    for n in 0..25 {
        let id = app.cart().await;
        app.clock.advance(TimeDelta::milliseconds(i64::from(n % 2))); // some in the same instant
        ids.push(id);
    }
    for id in ids.iter().step_by(5) {
        app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    }
    let page = app.get("/api/carts").await.data(200);
    assert_eq!(page["carts"].as_array().unwrap().len(), 10);
    assert_eq!(page["carts"][0]["id"], json!(ids.last().unwrap()));
    let pagination = &page["pagination"];
    assert_eq!(
        (&pagination["page"], &pagination["limit"], &pagination["total"], &pagination["totalPages"]),
        (&json!(1), &json!(10), &json!(25), &json!(3))
    );
    assert_eq!(app.get("/api/carts?page=4").await.data(200)["carts"], json!([]));
    assert_eq!(app.get("/api/carts?page=999999999999").await.data(200)["carts"], json!([]));

    // Pages and cursors return the same carts, for each filter.
    for (filter, total) in [("", 25), ("status=abandoned&", 20), ("status=expired&", 5), ("status=recovered&", 0)] {
        let mut by_page = Vec::new();
        for page in 1.. {
            let answer = app.get(&format!("/api/carts?{filter}page={page}&limit=7")).await.data(200);
            assert_eq!(answer["pagination"]["total"], json!(total));
            let carts = answer["carts"].as_array().unwrap().clone();
            if carts.is_empty() {
                break;
            }
            by_page.extend(carts);
        }
        let mut by_cursor = Vec::new();
        let mut cursor = String::new();
        loop {
            let answer = app.get(&format!("/api/carts?{filter}limit=7{cursor}")).await.data(200);
            by_cursor.extend(answer["carts"].as_array().unwrap().clone());
            match answer["pagination"]["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(by_page, by_cursor);
        let different: HashSet<&str> = by_page.iter().map(|cart| cart["id"].as_str().unwrap()).collect();
        assert_eq!(different.len(), total);
        let instant =
            |cart: &Value| cart["createdAt"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        let created: Vec<_> = by_page.iter().map(instant).collect();
        assert!(created.is_sorted_by(|a, b| a >= b));
    }
    for bad in ["page=0", "page=x", "limit=0", "limit=101", "status=lost", "cursor=x", "page=-1"] {
        app.get(&format!("/api/carts?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn deleting_a_cart_erases_the_shopper() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    let path = format!("/api/carts/{id}");
    assert_eq!(app.delete(&path).await.data(200), json!({"id": id, "deleted": true}));
    app.delete(&path).await.is_error(404, "NOT_FOUND");
    app.get(&path).await.is_error(404, "NOT_FOUND");
    app.idle().await;
    // A session's URL leads to a page with the shopper's address.
    let addresses: i64 = sqlx::query_scalar("select count(url) from payment_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!(addresses, 0);
    // Every column of every table, as text.
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(tables.len() > 8);
    for table in tables {
        let query =
            sqlx::AssertSqlSafe(format!("select count(*) from {table} t where t::text ~* '\\mada\\M|lovelace|teapot'"));
        let rows: i64 = sqlx::query_scalar(query).fetch_one(&app.pool).await.unwrap();
        assert_eq!(rows, 0, "{table} still knows the shopper");
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_one_cart() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let post = async |key: &str, body: &Value| {
        app.send(app.request(Method::POST, "/api/carts").header("idempotency-key", key).json(body)).await
    };
    let first = post("order 1", &a_cart()).await.data(201);
    let id = first["id"].as_str().unwrap();
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    let again = post("order 1", &a_cart()).await.data(201);
    assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("expired")), "the cart as it is now");

    let mut other = a_cart();
    other["customerName"] = json!("Grace");
    post("order 1", &other).await.is_error(422, "VALIDATION_ERROR");
    assert_ne!(post("order 2", &a_cart()).await.data(201)["id"], first["id"]);
    for bad in ["", &"x".repeat(256), "caf\u{e9}"] {
        post(bad, &a_cart()).await.is_error(400, "BAD_REQUEST");
    }
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    post("order 1", &a_cart()).await.is_error(404, "NOT_FOUND");
    app.clock.advance(TimeDelta::hours(24) + TimeDelta::seconds(1));
    assert_ne!(post("order 1", &other).await.data(201)["id"], first["id"], "a day later the key is new");
}

#[tokio::test]
async fn twenty_posts_at_once_under_one_key_make_one_cart() {
    let app = std::sync::Arc::new(Setup::default().without_worker().start().await);
    let posts = (0..20).map(|_| {
        let app = app.clone();
        tokio::spawn(async move {
            let request = app.request(Method::POST, "/api/carts").header("idempotency-key", "k").json(&a_cart());
            app.send(request).await.data(201)["id"].as_str().unwrap().to_owned()
        })
    });
    let mut ids = HashSet::new();
    for post in posts.collect::<Vec<_>>() {
        ids.insert(post.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], json!(1));
}
