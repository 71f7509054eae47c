//! Keys of the database: their scopes, management and end.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use common::api_keys::{self, KeyHash, NewKey, Scope, Scopes};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{
    Answer, App, Setup, connection, eventually,
    processes::{Process, run},
    within,
};

use crate::processes::{Shop, free_address};

/// How long a revoked key may be accepted: the product promises 5 s, a busy machine needs longer.
const REVOKED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn key(pool: &PgPool, name: &str, scopes: &[Scope], expires_at: Option<DateTime<Utc>>) -> String {
    let key = api_keys::new_key();
    let scopes: Scopes = scopes.iter().copied().collect();
    let new = NewKey { name: name.to_owned(), hash: KeyHash::of(key.as_bytes()), scopes, expires_at };
    let made_at = "2026-01-01T00:00:00Z".parse().unwrap();
    assert!(api_keys::add(&mut connection(pool).await, &new, made_at).await.unwrap());
    key
}

async fn revoke(pool: &PgPool, name: &str) {
    let now = "2026-12-01T00:00:00Z".parse().unwrap();
    assert!(api_keys::revoke(&mut connection(pool).await, name, now).await.unwrap());
}

pub(crate) async fn ask(app: &App, key: &str, method: Method, path: &str) -> Answer {
    app.send(app.bare_request(method, path).header("x-api-key", key)).await
}

/// All operations that require a key, with the scopes of which one is enough.
fn keyed_operations() -> Vec<(Method, String, Vec<Scope>)> {
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let open = ["/api/webhooks/stripe", "/api/openapi.json"].contains(&path.as_str());
            let one_of = operation["security"].as_array().into_iter().flatten();
            let scopes: Vec<Scope> =
                one_of.filter_map(|one| one["apiKey"][0].as_str()).map(|scope| scope.parse().unwrap()).collect();
            assert_eq!(!scopes.is_empty(), path.starts_with("/api/") && !open, "{method} {path}");
            assert!(method == "get" || !scopes.contains(&Scope::Support), "{method} {path} changes something");
            if !scopes.is_empty() {
                let path = path.replace("{name}", "expiry").replace("{id}", "cart_unknown");
                operations.push((method.to_uppercase().parse().unwrap(), path, scopes));
            }
        }
    }
    operations
}

#[tokio::test]
async fn a_key_may_be_sent_as_a_bearer_token() {
    const CHALLENGE: &str = "Bearer realm=\"Quick Checkout Tracker\"";
    let app = Setup::default().without_worker().start().await;
    let key = key(&app.pool, "shop", &[Scope::Read], None).await;
    let get = |headers: &[(&str, &str)]| {
        let request = app.bare_request(Method::GET, "/api/carts");
        app.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    };
    let bearer = format!("Bearer {key}");
    for headers in [
        &[("authorization", bearer.as_str())][..],
        &[("authorization", &format!("bearer   {key} "))],
        &[("authorization", &bearer), ("x-api-key", &key)],
        // A proxy may pass on its own credentials.
        &[("authorization", "Basic YWRhOmFkYQ=="), ("x-api-key", &key)],
    ] {
        get(headers).await.data(200);
    }
    for headers in [
        [("authorization", bearer.as_str()), ("x-api-key", "test-key")],
        [("x-api-key", "test-key"), ("x-api-key", &key)],
        [("authorization", &bearer), ("authorization", "Bearer other")],
    ] {
        let refused = get(&headers).await;
        let message = &refused.is_error(401, "UNAUTHORIZED")["message"];
        assert_eq!(message, "The request has different API keys; send one of them");
    }
    get(&[("x-api-key", &key), ("x-api-key", &key)]).await.data(200);
    for headers in [
        &[][..],
        &[("x-api-key", "wrong")],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", &key)],
        &[("authorization", &format!("Basic {key}"))],
    ] {
        let refused = get(headers).await;
        refused.is_error(401, "UNAUTHORIZED");
        assert_eq!(refused.header("www-authenticate"), CHALLENGE, "{headers:?}");
    }
    // The scopes of the key apply.
    let request = app.bare_request(Method::GET, "/api/jobs").bearer_auth(&key);
    app.send(request).await.is_error(403, "FORBIDDEN");
}

#[tokio::test]
async fn a_key_allows_only_its_scopes() {
    let app = Setup::default().without_worker().start().await;
    let mut one = Vec::new();
    for scope in Scope::ALL {
        one.push(key(&app.pool, scope.as_str(), &[scope], None).await);
    }
    for key in &one {
        eventually("the key is known", async || ask(&app, key, Method::GET, "/api/nothing").await.status == 404).await;
    }
    let operations = keyed_operations();
    assert!(operations.len() >= 18, "{operations:?}");
    let mut others: HashMap<String, String> = HashMap::new();
    for (method, path, scopes) in operations {
        let rest: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| !scopes.contains(scope)).collect();
        let name = format!("not-{}", scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join("-"));
        if !others.contains_key(&name) {
            let other = key(&app.pool, &name, &rest, None).await;
            eventually("the key is known", async || ask(&app, &other, Method::GET, "/api/nothing").await.status == 404)
                .await;
            others.insert(name.clone(), other);
        }
        let refused = ask(&app, &others[&name], method.clone(), &path).await;
        let message = refused.is_error(403, "FORBIDDEN")["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with(&format!("the scope {}", scopes[0].as_str())), "{method} {path}: {message}");
        for scope in scopes {
            let place = Scope::ALL.iter().position(|known| *known == scope).unwrap();
            let allowed = ask(&app, &one[place], method.clone(), &path).await;
            assert!(![401, 403].contains(&allowed.status), "{method} {path}: {}", allowed.text);
        }
    }
    let write = &one[1];
    let created = app.bare_request(Method::POST, "/api/carts").header("x-api-key", write).json(&tests::a_cart());
    let id = app.send(created).await.data(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/carts/{id}");
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(ask(&app, write, method.clone(), &path).await.status, 403);
        assert_eq!(ask(&app, &one[0], method, &path).await.status, 200);
    }
    // A method that does not exist returns 405 to clients with a key.
    ask(&app, write, Method::PUT, &path).await.is_error(405, "METHOD_NOT_ALLOWED");
    assert_eq!(ask(&app, &one[0], Method::DELETE, &path).await.status, 403);
    assert_eq!(ask(&app, write, Method::DELETE, &path).await.status, 200);
}

#[tokio::test]
async fn expired_and_revoked_keys_are_refused_and_free_their_names() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let until = Some(app.now() + TimeDelta::days(1));
    let short = key(&app.pool, "short", &[Scope::Read], until).await;
    let long = key(&app.pool, "long", &[Scope::Read], None).await;
    let status = async |key: &str| ask(&app, key, Method::GET, "/api/carts").await.status;
    eventually("both are known", async || status(&short).await == 200 && status(&long).await == 200).await;
    app.clock.advance(TimeDelta::days(1) - TimeDelta::seconds(1));
    assert_eq!(status(&short).await, 200);
    app.clock.advance(TimeDelta::seconds(1));
    assert_eq!((status(&short).await, status(&long).await), (401, 200));
    revoke(&app.pool, "long").await;
    within(REVOKED_WITHIN, "it is refused", async || status(&long).await == 401).await;
    let again = key(&app.pool, "long", &[Scope::Read], None).await;
    eventually("the new one is known", async || status(&again).await == 200).await;
    assert_eq!(status(&long).await, 401);
    assert_eq!(status("test-key").await, 200, "one of API_KEY is as it was");
}

#[tokio::test]
async fn cached_keys_work_while_postgres_is_unavailable() {
    let app = Setup::default().behind_a_door().without_worker().start().await;
    let known = key(&app.pool, "known", &[Scope::Read], None).await;
    eventually("it is known", async || ask(&app, &known, Method::GET, "/api/carts").await.status == 200).await;
    app.door.as_ref().unwrap().close().await;
    for _ in 0..2 {
        ask(&app, &known, Method::GET, "/api/carts").await.is_error(503, "UNAVAILABLE");
        ask(&app, "qct_no", Method::GET, "/api/carts").await.is_error(401, "UNAUTHORIZED");
        ask(&app, &known, Method::GET, "/api/jobs").await.is_error(403, "FORBIDDEN");
    }
    // A change meanwhile is noticed soon afterwards.
    revoke(&app.pool, "known").await;
    app.door.as_ref().unwrap().open().await;
    within(2 * REVOKED_WITHIN, "it is refused", async || {
        ask(&app, &known, Method::GET, "/api/carts").await.status == 401
    })
    .await;
}

async fn sign_in(app: &App, key: &str) -> Answer {
    let request = app.bare_request(Method::POST, "/sign-in");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(format!("key={key}"));
    app.send(request).await
}

#[tokio::test]
async fn a_dashboard_session_needs_an_operator_key_and_ends_with_it() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let operator = key(&app.pool, "operator", &[Scope::Operator], None).await;
    let until = Some(app.now() + TimeDelta::hours(1));
    let short = key(&app.pool, "short", &[Scope::Operator], until).await;
    let shop = key(&app.pool, "shop", &[Scope::Read, Scope::Write], None).await;
    eventually("all are known", async || {
        ask(&app, &operator, Method::GET, "/api/queues").await.status == 200
            && ask(&app, &short, Method::GET, "/api/queues").await.status == 200
            && ask(&app, &shop, Method::GET, "/api/carts").await.status == 200
    })
    .await;
    let refused = sign_in(&app, &shop).await;
    assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
    assert!(refused.text.contains("neither the operator nor the support scope"), "{}", refused.text);

    session_ends(&app, &short, async || app.clock.advance(TimeDelta::hours(1))).await;
    session_ends(&app, &operator, async || revoke(&app.pool, "operator").await).await;
}

/// Asserts that a session of the key and its event stream end once the key has ended.
async fn session_ends(app: &App, key: &str, end: impl AsyncFnOnce()) {
    let let_in = sign_in(app, key).await;
    assert_eq!(let_in.status, 303, "{}", let_in.text);
    let cookie = let_in.header("set-cookie").split(';').next().unwrap().to_owned();
    let get = async |path: &str| app.send(app.bare_request(Method::GET, path).header("cookie", &cookie)).await;
    assert_eq!(get("/").await.status, 200);
    let mut events = app.bare_request(Method::GET, "/events").header("cookie", &cookie).send().await.unwrap();
    assert!(events.chunk().await.unwrap().is_some());
    end().await;
    within(REVOKED_WITHIN, "the session is over", async || get("/").await.status == 303).await;
    let ended = tokio::time::timeout(REVOKED_WITHIN, async { while events.chunk().await.unwrap().is_some() {} }).await;
    assert!(ended.is_ok(), "an open page is not told any more either");
    assert_eq!(get("/events").await.status, 401);
}

/// A second key's use shows when the api has recorded the uses before it.
#[tokio::test]
async fn the_last_use_of_a_key_is_recorded_once_a_minute() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let (one, other) =
        (key(&app.pool, "one", &[Scope::Read], None).await, key(&app.pool, "other", &[Scope::Read], None).await);
    let used_at = async |name: &str| -> Option<DateTime<Utc>> {
        let used = sqlx::query_scalar("select last_used_at from api_keys where name = $1").bind(name);
        used.fetch_one(&app.pool).await.unwrap()
    };
    let used = async |key: &str| ask(&app, key, Method::GET, "/api/carts").await.status == 200;
    let first = Some(app.now());
    eventually("the first is known", async || used(&one).await).await;
    eventually("its use is recorded", async || used_at("one").await == first).await;
    app.clock.advance(TimeDelta::seconds(59));
    assert!(used(&one).await);
    eventually("the other is known", async || used(&other).await).await;
    eventually("the use of the other is recorded", async || used_at("other").await == Some(app.now())).await;
    assert_eq!(used_at("one").await, first);
    app.clock.advance(TimeDelta::seconds(1));
    assert!(used(&one).await);
    eventually("a minute later it is recorded again", async || used_at("one").await == Some(app.now())).await;
}

async fn keys(shop: &Shop, arguments: &[&str]) -> (bool, String, String) {
    let arguments: Vec<&str> = ["keys"].iter().chain(arguments).copied().collect();
    let output = run("api", &arguments, [("DATABASE_URL", shop.database.url.clone())]).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn keys_are_managed_on_the_command_line_and_a_revoked_one_is_refused_by_every_api() {
    let shop = Shop::open().await;
    let other_address = free_address().await;
    let mut apis = Vec::new();
    for address in [shop.address(), other_address] {
        let mut variables = shop.api_variables();
        variables.retain(|(name, _)| *name != "BIND_ADDR");
        variables.extend([("BIND_ADDR", address.to_string()), ("RATE_LIMIT_PER_MINUTE", "0".to_owned())]);
        let mut api = Process::start("api", variables).await;
        api.says("api is listening").await;
        apis.push(api);
    }

    let (good, shown, said) = keys(&shop, &["add", "shop", "--scope", "read,write", "--expires", "90d"]).await;
    assert!(good && shown.starts_with("qct_") && shown.len() == 68, "{shown} {said}");
    assert!(said.starts_with("shop: read, write, until 20"), "{said}");
    let urls = [shop.url("/api/carts"), format!("http://{other_address}/api/carts")];
    let status = async |url: &str, key: &str| {
        shop.http.get(url).header("x-api-key", key).send().await.unwrap().status().as_u16()
    };
    for url in &urls {
        within(REVOKED_WITHIN, "the key is known", async || status(url, &shown).await == 200).await;
    }
    let kept: i64 = sqlx::query_scalar("select count(*) from api_keys t where t::text like '%' || $1 || '%'")
        .bind(shown.trim_start_matches("qct_"))
        .fetch_one(&shop.database.pool(1))
        .await
        .unwrap();
    assert_eq!(kept, 0, "the key itself is nowhere");

    let (_, again, said) = keys(&shop, &["add", "shop", "--scope", "read"]).await;
    assert_eq!(
        (again.as_str(), said.as_str()),
        ("", "api: there is a key named shop already; `api keys revoke shop` ends it")
    );
    eventually("its use is listed", async || keys(&shop, &["list"]).await.1.contains("  used 20")).await;
    let listed = keys(&shop, &["list"]).await.1;
    assert!(listed.starts_with("shop ") && listed.contains("read, write") && listed.contains("expires 20"), "{listed}");

    let (good, said, _) = keys(&shop, &["revoke", "shop"]).await;
    assert!(good && said == "shop is revoked; every api refuses it within 5 s", "{said}");
    for url in &urls {
        within(REVOKED_WITHIN, "the key is refused", async || status(url, &shown).await == 401).await;
        assert_eq!(status(url, "key").await, 200, "that of API_KEY is not");
    }
    assert_eq!(keys(&shop, &["revoke", "shop"]).await.2, "api: there is no key named shop (any more)");
    assert!(keys(&shop, &["list"]).await.1.contains("REVOKED"));
    for (arguments, complaint) in [
        (vec!["add", "x", "--scope", "admin"], "there are read, write, operator and support"),
        (vec!["add", "a b", "--scope", "read"], "a name is 1 to 64 letters"),
        (vec!["add", "x"], "--scope"),
        (vec!["add", "x", "--scope", "read", "--expires", "2020-01-01"], "api: --expires is not in the future"),
        (
            vec!["add", "x", "--scope", "read", "--expires", "soon"],
            "it takes a duration such as 90d, from 1s to 100 years, or a date or an instant",
        ),
    ] {
        let (good, _, said) = keys(&shop, &arguments).await;
        assert!(!good && said.contains(complaint), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn key_constraints_are_enforced_by_postgres() {
    let app = Setup::default().without_worker().start().await;
    for (name, hash, scopes) in [
        ("a b", vec![0; 32], vec!["read"]),
        ("short", vec![0; 31], vec!["read"]),
        ("none", vec![0; 32], vec![]),
        ("unknown", vec![0; 32], vec!["admin"]),
    ] {
        let insert = "insert into api_keys (id, name, key_hash, scopes, created_at) values (gen_random_uuid(), $1, $2, $3, now())";
        let refused = sqlx::query(insert).bind(name).bind(hash).bind(scopes).execute(&app.pool).await;
        assert!(refused.is_err(), "{name}");
    }
    assert_eq!(app.get("/api/carts").await.data(200)["carts"], json!([]));
}
