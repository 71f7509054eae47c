//! Pages by number contain exactly the rows that a count finds there.

use common::analytics;
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{App, Setup, connection};

const LIMIT: i64 = 7;
const STATUSES: [&str; 4] = ["abandoned", "recovered", "expired", ""];

/// Carts over 90 days, some with the same time.
async fn seed(pool: &PgPool) {
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, created_at)
         select 'cart_' || md5(n::text), 'e', 'n', '[]', n, 'usd', (array['abandoned', 'recovered', 'expired'])[n % 3 + 1],
                now() - n / 4 * interval '5 hours 20 minutes'
         from generate_series(1, 1600) n",
    )
    .execute(pool)
    .await
    .unwrap();
}

async fn counted(pool: &PgPool, status: &str, page: i64) -> Vec<String> {
    sqlx::query_scalar(
        "select id from carts where $1 in (status, '') order by created_at desc, id desc offset $2 limit $3",
    )
    .bind(status)
    .bind((page - 1) * LIMIT)
    .bind(LIMIT)
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn answered(app: &App, status: &str, page: i64) -> (Vec<String>, i64) {
    let data = app.get(&format!("/api/carts?status={status}&page={page}&limit={LIMIT}")).await.data(200);
    let id = |cart: &Value| cart["id"].as_str().unwrap().to_owned();
    (data["carts"].as_array().unwrap().iter().map(id).collect(), data["pagination"]["totalPages"].as_i64().unwrap())
}

async fn check(app: &App, after: &str) {
    for status in STATUSES {
        let (_, pages) = answered(app, status, 1).await;
        for page in [1, 29, 30, 31, 40, 55, 56, 57, pages - 1, pages, pages + 1] {
            let page = page.max(1);
            let (ids, _) = answered(app, status, page).await;
            assert_eq!(ids, counted(&app.pool, status, page).await, "page {page} of {status:?} after {after}");
        }
        assert_eq!(answered(app, status, pages + 1).await.0, [""; 0]);
    }
}

#[tokio::test]
async fn every_page_matches_a_count_after_any_history() {
    let app = Setup::default().without_worker().start().await;
    seed(&app.pool).await;
    check(&app, "seeding").await;
    analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
    check(&app, "adding up").await;
    for change in [
        "update carts set status = 'expired' where status = 'abandoned' and total_minor % 2 = 0",
        "delete from carts where total_minor % 11 = 0",
        "update carts set created_at = created_at - interval '40 days' where total_minor % 7 = 0",
        "update carts set created_at = date_trunc('month', created_at) where total_minor % 5 = 0",
        "update carts set customer_name = 'm'",
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         select 'cart_new' || n, 'e', 'n', '[]', n, 'usd' from generate_series(1, 300) n",
        "update carts set created_at = '2019-12-31 23:59:59.999999Z' where total_minor % 13 = 0",
        "delete from carts where created_at > now() - interval '1 hour'",
    ] {
        sqlx::query(change).execute(&app.pool).await.unwrap();
        check(&app, change).await;
        if change.starts_with("delete") {
            analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
            check(&app, "adding up").await;
        }
    }
    sqlx::query("truncate carts cascade").execute(&app.pool).await.unwrap();
    check(&app, "truncating").await;
}

/// Every list with pages, according to the OpenAPI document, with any filter.
#[tokio::test]
async fn pages_beyond_the_end_are_empty() {
    let app = Setup::default().start().await;
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    let document = app.get("/api/openapi.json").await.body;
    let has_pages = |path: &Value| {
        path["get"]["parameters"].as_array().is_some_and(|all| all.iter().any(|parameter| parameter["name"] == "page"))
    };
    let paths = document["paths"].as_object().unwrap().iter().filter(|(_, path)| has_pages(path));
    let paths: Vec<&String> = paths.map(|(path, _)| path).collect();
    assert_eq!(paths, ["/api/carts", "/api/erasure/export", "/api/jobs"], "lists with pages");
    let email = tests::a_cart()["customerEmail"].as_str().unwrap().to_owned();
    for page in [2, 1_i64 << 31, 595_794_856, i64::MAX / 2, i64::MAX] {
        for path in &paths {
            let of_person = format!("&email={email}");
            let filters = match path.as_str() {
                "/api/carts" => vec!["", &of_person, "&status=abandoned", "&q=ada", "&sort=totalValue", "&link=ready"],
                "/api/jobs" => vec!["", "&state=done"],
                _ => vec![of_person.as_str()],
            };
            for rest in filters {
                let list = app.get(&format!("{path}?page={page}&limit=38{rest}")).await.data(200);
                let rows =
                    [&list["carts"], &list["jobs"], &list["records"]["carts"]].into_iter().find(|rows| rows.is_array());
                assert_eq!(rows, Some(&json!([])), "page {page} of {path} with {rest:?}");
            }
        }
    }
}

/// Concurrent requests share statements, but each gets its own response.
#[tokio::test]
async fn concurrent_requests_get_their_own_responses() {
    let app = std::sync::Arc::new(Setup::default().without_worker().start().await);
    let clients: Vec<_> = (0..100)
        .map(|client| {
            let app = app.clone();
            tokio::spawn(async move {
                let mut cart = tests::a_cart();
                cart["customerName"] = json!(format!("Client {client}"));
                let id = app.cart_of(&cart).await;
                let shown = app.show(&id).await;
                assert_eq!((&shown["id"], &shown["customerName"]), (&json!(id), &cart["customerName"]));
                app.get(&format!("/api/carts/cart_nobody{client}")).await.is_error(404, "NOT_FOUND");
                let (page, limit) = (client % 10 + 1, client % 5 + 1);
                let list = app.get(&format!("/api/carts?page={page}&limit={limit}")).await.data(200);
                assert_eq!((&list["pagination"]["page"], &list["pagination"]["limit"]), (&json!(page), &json!(limit)));
                id
            })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for client in clients {
        ids.insert(client.await.unwrap());
    }
    assert_eq!(ids.len(), 100);
    let list = app.get("/api/carts?limit=100").await.data(200);
    assert_eq!(list["pagination"]["total"], json!(100));
    assert!(list["carts"].as_array().unwrap().iter().all(|cart| ids.contains(cart["id"].as_str().unwrap())));
}
