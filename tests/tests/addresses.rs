//! Every address that can be stored can be found, exported and erased, in any spelling.

use std::collections::{BTreeMap, BTreeSet};

use common::email::{EmailAddress, canonical};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use tests::{App, Setup, a_cart};

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn found(app: &App, email: &str) -> (BTreeSet<String>, u64) {
    let list = app.get(&format!("/api/carts?limit=100&email={}", encoded(email))).await.data(200);
    (ids(&list["carts"]), list["pagination"]["total"].as_u64().unwrap())
}

fn ids(carts: &Value) -> BTreeSet<String> {
    carts.as_array().unwrap().iter().map(|cart| cart["id"].as_str().unwrap().to_owned()).collect()
}

async fn exported(app: &App, email: &str) -> BTreeSet<String> {
    let export = app.get(&format!("/api/erasure/export?email={}", encoded(email))).await.data(200);
    ids(&export["records"]["carts"])
}

async fn erase(app: &App, email: &str) -> Value {
    app.post("/api/erasure", &json!({"email": email})).await.data(200)["removed"]["carts"].clone()
}

/// Addresses with few distinct letters, so that some are spellings of each other.
fn addresses() -> impl Strategy<Value = String> {
    let local = select(vec![
        "ada",
        "Ada",
        "ADA",
        "ada.b",
        "\"ada\"",
        "\"ada b\"",
        "\"Ada B\"",
        "\"a\\\"b\"",
        "\"a@b\"",
        "\"a\tb\"",
        "José",
        "JOSÉ",
        "Jose\u{301}",
        "ılgaz",
        "Ilgaz",
        "ilgaz",
        "İnci",
        "groß",
        "GROẞ",
        "gross",
        "ΟΔΟΣ",
        "οδος",
        "οδοσ",
        "\u{212a}elvin",
        "kelvin",
        "用户",
        "ﬁsh",
        "hana..s.",
        "\"hana..s.\"",
        "Hana..S.",
        ".a",
        "x\u{304}",
        "😀",
        "علی\u{200c}رضا",
    ]);
    let domain = select(vec![
        "example.com",
        "Example.COM",
        "bücher.example",
        "BÜCHER.example",
        "bu\u{308}cher.example",
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.example",
        "straße.example",
        "strasse.example",
        "ｅｘａｍｐｌｅ.com",
        "例子.example",
        "xn--a.example",
        "डाटा.भारत",
        "xn--c2bd1gb.xn--h2brj9c",
        "a_b.example",
    ]);
    (local, domain).prop_map(|(local, domain)| format!("{local}@{domain}"))
}

/// Other spellings of the address.
fn spellings(address: &str) -> Vec<String> {
    let (local, domain) = address.rsplit_once('@').unwrap();
    let unicode = domain.to_lowercase().replace("xn--bcher-kva", "bücher");
    vec![
        address.to_owned(),
        address.to_ascii_uppercase(),
        format!(" {address}\t"),
        canonical(address),
        format!("{local}@{unicode}"),
    ]
}

#[tokio::test]
async fn every_stored_address_is_found_exported_and_erased() {
    let app = Setup::default().without_worker().start().await;
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let strategy = addresses();
    let mut people: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for _ in 0..160 {
        let address = strategy.new_tree(&mut runner).unwrap().current();
        let mut cart = a_cart();
        cart["customerEmail"] = json!(address);
        let answer = app.post("/api/carts", &cart).await;
        assert_eq!(answer.status == 201, EmailAddress::parse(&address).is_some(), "{address}: {}", answer.text);
        if answer.status == 201 {
            let id = answer.data(201)["id"].as_str().unwrap().to_owned();
            let (ids, addresses) = people.entry(canonical(&address)).or_default();
            ids.insert(id);
            addresses.insert(address);
        }
    }
    assert!(people.len() > 30, "{people:?}");
    let mut most = 0;
    for (ids, addresses) in people.values() {
        most = most.max(addresses.len());
        for spelling in addresses.iter().flat_map(|address| spellings(address)) {
            assert_eq!(found(&app, &spelling).await, (ids.clone(), ids.len() as u64), "{spelling:?}");
        }
    }
    assert!(most > 2, "some people have more than one spelling");
    for (ids, addresses) in people.values() {
        let spelling = spellings(addresses.last().unwrap()).pop().unwrap();
        assert_eq!(exported(&app, &spelling).await, *ids, "{spelling:?}");
        assert_eq!(erase(&app, &spelling).await, json!(ids.len()), "{spelling:?}");
        assert_eq!(found(&app, addresses.first().unwrap()).await.1, 0, "{spelling:?}");
    }
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], json!(0));
}

#[tokio::test]
async fn addresses_stored_by_other_programs_are_found() {
    let app = Setup::default().without_worker().start().await;
    let stored = [
        "ada@b\u{fc}cher.example",
        " ADA@BU\u{308}CHER.example",
        "Ada@XN--bcher-kva.EXAMPLE\n",
        "\"ada\"@bücher.example",
        "ada@bucher.example",
        "adaa@bücher.example",
        "nobody",
        "",
    ];
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         select 'cart_' || place, address, 'n', '[]', 100, 'usd' from unnest($1::text[]) with ordinality as row (address, place)",
    )
    .bind(&stored[..])
    .execute(&app.pool)
    .await
    .unwrap();
    let expected: BTreeSet<String> = (1..=4).map(|place| format!("cart_{place}")).collect();
    for spelling in ["ada@bücher.example", "ADA@xn--bcher-kva.example", "\"Ada\"@BÜCHER.example"] {
        assert_eq!(found(&app, spelling).await, (expected.clone(), 4), "{spelling}");
    }
    assert_eq!(found(&app, "NOBODY").await, (["cart_7".to_owned()].into(), 1));
    // The pages together are complete and without duplicates.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/carts?limit=1&email={}&cursor={cursor}", encoded("ada@bücher.example"));
        let page = app.get(&path).await.data(200);
        seen.extend(ids(&page["carts"]));
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>()), (4, expected.clone()));
    // Older messages may contain the address in any spelling, within JSON with escaped quotes.
    for (place, message) in
        ["refused: \"ADA\"@BÜCHER.example", "refused: ada@xn--bcher-kva.example", "refused: adaa@bücher.example"]
            .iter()
            .enumerate()
    {
        sqlx::query(
            "insert into jobs (id, queue, kind, payload, state, attempts, max_attempts, last_error, attempt_log, finished_at)
             values (gen_random_uuid(), 'payment-links', 'close_payment_link', jsonb_build_object('cartId', 'cart_x' || $1::int),
                     'dead', 1, 1, $2, jsonb_build_array(jsonb_build_object('attempt', 1, 'error', $2)), now())",
        )
        .bind(i32::try_from(place).unwrap())
        .bind(*message)
        .execute(&app.pool)
        .await
        .unwrap();
    }
    assert_eq!(exported(&app, "ada@xn--bcher-kva.example").await, expected);
    assert_eq!(erase(&app, "ada@XN--BCHER-KVA.example").await, json!(4));
    let left: Vec<String> =
        sqlx::query_scalar("select last_error from jobs order by payload").fetch_all(&app.pool).await.unwrap();
    assert_eq!(left, ["erased", "erased", "refused: adaa@bücher.example"]);
    let log: String = sqlx::query_scalar("select attempt_log::text from jobs order by payload limit 1")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert!(!log.contains("ADA"), "{log}");
}

#[cfg(target_os = "linux")] // reads memory usage from /proc
#[tokio::test]
async fn a_search_takes_little_memory_however_many_unusual_addresses_there_are() {
    let shop = crate::processes::Shop::open().await;
    // Addresses that Postgres can't compare case-insensitively.
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         select 'cart_' || n, 'José' || n || repeat('x', 200) || '@example.com', 'n', '[]', 100, 'usd'
         from generate_series(1, 30000) n",
    )
    .execute(&shop.database.pool(1))
    .await
    .unwrap();
    let api = shop.api().await;
    let get = async |path: &str| shop.call(shop.http.get(shop.url(path))).await;
    assert_eq!(get("/api/carts?limit=1").await.0, 200);
    let before = crate::untrusted_json::peak_kib(&api);
    let email = format!("JOSÉ7{}@example.com", "x".repeat(200));
    let (status, list) = get(&format!("/api/carts?email={}", encoded(&email))).await;
    assert_eq!((status, ids(&list["data"]["carts"])), (200, ["cart_7".to_owned()].into()));
    let (status, receipt) = shop.call(shop.http.post(shop.url("/api/erasure")).json(&json!({"email": email}))).await;
    assert_eq!((status, &receipt["data"]["removed"]["carts"]), (200, &json!(1)), "{receipt}");
    let added = crate::untrusted_json::peak_kib(&api) - before;
    println!("the peak grew by {added} KiB");
    assert!(added < 4 * 1024, "the peak grew by {added} KiB");
}
