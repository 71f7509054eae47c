//! The HTTP conventions that clients expect of any API.

use std::collections::{BTreeSet, HashMap};

use chrono::TimeDelta;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tests::{App, Contract, Setup, a_cart, a_line, eventually, is_of_the_dashboard};

/// The routes of axum's router, parsed from its `Debug` output: first the numbered routes with
/// their methods, then the pattern of each number.
fn routes(router: &axum::Router) -> BTreeSet<String> {
    let routes = format!("{router:?}");
    let routes = routes.split("fallback_router").next().unwrap_or_default(); // the fallback is not a route
    let entries = routes.split("RouteId(").skip(1).filter_map(|entry| entry.split_once("): "));
    let (endpoints, patterns): (Vec<_>, Vec<_>) = entries.partition(|(_, entry)| entry.starts_with("MethodRouter("));
    let methods: HashMap<&str, &str> = endpoints
        .into_iter()
        .filter_map(|(number, endpoint)| {
            Some((number, endpoint.split_once("allow_header: Bytes(b\"")?.1.split_once('"')?.0))
        })
        .collect();
    let patterns = patterns.into_iter().filter_map(|(number, pattern)| Some((number, pattern.split('"').nth(1)?)));
    // GET includes HEAD.
    let all = |number, pattern| {
        methods[number].split(',').filter(|method| *method != "HEAD").map(move |method| format!("{method} {pattern}"))
    };
    patterns
        .filter(|(_, pattern)| pattern.starts_with('/') && !is_of_the_dashboard(pattern))
        .flat_map(|(number, pattern)| all(number, pattern))
        .collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let app = Setup::default().without_worker().start().await;
    let router = &app.router;
    let described: BTreeSet<String> = Contract::get().operations().into_iter().collect();
    assert_eq!(routes(router), described);
    assert!(described.len() > 20);
}

#[test]
fn references_resolve_and_no_parameter_is_null() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    let lost: Vec<&String> = found.iter().filter(|at| document.pointer(&at[1..]).is_none()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    for (path, operation) in document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().values().map(move |operation| (path, operation)))
    {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter.to_string().contains("\"null\""), "no parameter is null: {path} {parameter}");
        }
    }
}

/// A misspelt filter must not return everything.
#[tokio::test]
async fn every_operation_refuses_unknown_query_parameters() {
    /// Stripe's and shoppers' requests may have parameters of others, and `/docs` is a page.
    const TAKE_ANY: [&str; 5] =
        ["GET /docs", "GET /pay/{token}", "POST /pay/{token}", "GET /pay/{token}/thanks", "POST /api/webhooks/stripe"];
    let app = Setup::default().without_worker().start().await;
    let mut others = Vec::new();
    for operation in Contract::get().operations() {
        let (method, pattern) = operation.split_once(' ').unwrap();
        let path = pattern.replace("{id}", "x").replace("{name}", "x").replace("{token}", "x");
        let mut methods = vec![method];
        methods.extend((method == "GET").then_some("HEAD"));
        for method in methods {
            // Even without a value.
            let request = app.request(method.parse().unwrap(), &format!("{path}?parameterOfATest="));
            let answer = app.send(request).await;
            if TAKE_ANY.contains(&operation.as_str()) {
                assert!(!answer.text.contains("parameterOfATest"), "{operation}: {}", answer.text);
                others.push(operation.clone());
            } else if method == "HEAD" {
                assert_eq!(answer.status, 400, "{operation}");
            } else {
                let message = answer.is_error(400, "BAD_REQUEST")["message"].as_str().unwrap().to_owned();
                let begin = "Unknown query parameter `parameterOfATest`; this endpoint takes ";
                assert!(message.starts_with(begin), "{operation}: {message}");
            }
        }
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), TAKE_ANY.len(), "{others:?}");
    let refused = app.get("/api/carts?statsu=paid").await;
    let message = &refused.is_error(400, "BAD_REQUEST")["message"];
    assert_eq!(message, "Unknown query parameter `statsu`; did you mean `status`?");
    // The key comes first, and pages of the dashboard ignore what they do not know.
    let bare = app.send(app.bare_request(Method::GET, "/api/carts?statsu=paid")).await;
    bare.is_error(401, "UNAUTHORIZED");
    assert_eq!(app.get("/sign-in?statsu=paid").await.status, 200);
}

#[tokio::test]
async fn the_document_is_public_and_cacheable_by_etag() {
    let app = Setup::default().without_worker().start().await;
    for path in ["/api/openapi.json", "/docs"] {
        let answer = app.send(app.bare_request(Method::GET, path)).await;
        assert_eq!(answer.status, 200);
        let tag = answer.header("etag").to_owned();
        let again = app.send(app.bare_request(Method::GET, path).header("if-none-match", &tag)).await;
        assert_eq!((again.status, again.header("etag"), again.text.as_str()), (304, tag.as_str(), ""));
    }
    let document = app.send(app.bare_request(Method::GET, "/api/openapi.json")).await;
    assert_eq!(document.body["openapi"], json!("3.1.0"));
    let mut served = document.body.clone();
    let servers = served.as_object_mut().unwrap().remove("servers").unwrap();
    assert_eq!((&servers[0]["url"], &servers[1]["url"]), (&json!(app.url("")), &json!("/")));
    assert_eq!(served, serde_json::from_str::<Value>(&api::document()).unwrap());
}

/// Summaries are commands ("Create a cart"), and names within the program stay there.
#[test]
fn operations_are_described_in_words_for_clients() {
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        let id = operation["operationId"].as_str().unwrap();
        let (summary, description) = (operation["summary"].as_str().unwrap(), operation["description"].as_str());
        let verb = summary.split(' ').next().unwrap();
        let is_command = verb.starts_with(char::is_uppercase) && !verb.ends_with('s') && !summary.ends_with('.');
        assert!(is_command && summary.len() < 40, "{id}: {summary}");
        assert!(description.is_some_and(|text| !text.trim().is_empty()) && operation["tags"].is_array(), "{id}");
        let is_keyed = !operation["security"].as_array().unwrap().is_empty();
        assert_eq!(description.unwrap().contains("```sh\ncurl -s \"$API_URL/api/"), is_keyed, "{id}");
    }
    fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match (name.as_str(), value) {
                ("summary" | "description", Value::String(text)) => found.push(text),
                _ => texts(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    texts(&document, &mut found);
    // Codes of the timeline are public.
    let codes = include_str!("../../docs/api.md");
    for text in found {
        for word in text.split('`').skip(1).step_by(2) {
            let is_internal = word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(!is_internal || codes.contains(&format!("`{word}`")), "`{word}` in {text}");
        }
    }
}

#[test]
fn every_body_has_an_example_that_its_schema_accepts() {
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let contract = Contract::get();
    let mut count = 0;
    let mut check = |at: String, content: &Value| {
        for (media_type, content) in content.as_object().into_iter().flatten() {
            let of_each = content["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
            let examples: Vec<&Value> = content.get("example").into_iter().chain(of_each).collect();
            assert!(!examples.is_empty(), "{at} {media_type}");
            for example in examples {
                assert_ne!(example, "text", "{at}");
                contract.check_example(&format!("{at}/content/{}/schema", media_type.replace('/', "~1")), example);
                count += 1;
            }
        }
    };
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("#/paths/{}/{method}", path.replace('/', "~1").replace('{', "%7B").replace('}', "%7D"));
            check(format!("{at}/requestBody"), &operation["requestBody"]["content"]);
            for (status, response) in operation["responses"].as_object().unwrap() {
                check(format!("{at}/responses/{status}"), &response["content"]);
            }
        }
    }
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        check(format!("#/components/responses/{name}"), &response["content"]);
    }
    assert!(count > 70, "{count}");
}

#[tokio::test]
async fn lists_link_to_their_next_page() {
    let app = Setup::default().without_worker().start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(app.cart().await);
    }
    ids.reverse();
    for (first, key) in [
        ("/api/carts?limit=1&status=abandoned&page=&email=", "carts"),
        ("/api/carts?limit=1&email=ada@example.com", "carts"),
        ("/api/carts?email=ada%40example.com&page=1&limit=1", "carts"),
    ] {
        let (mut path, mut seen) = (first.to_owned(), Vec::new());
        while !path.is_empty() {
            let page = app.get(&path).await;
            assert_eq!(page.header("cache-control"), "private, no-cache");
            let link = page.header("link").to_owned();
            path = match link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) {
                Some(next) => next.to_owned(),
                None => String::new(),
            };
            let page = page.data(200);
            let cursor = page["pagination"]["nextCursor"].as_str().unwrap_or_default();
            assert_eq!(path.ends_with(&format!("&cursor={cursor}")), !path.is_empty(), "{path}");
            seen.extend(page[key].as_array().unwrap().iter().map(|cart| cart["id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(seen, ids, "{first}");
    }
    for id in &ids {
        app.ask_later(id).await;
    }
    let jobs = app.get("/api/jobs?queue=payment-links&limit=2").await;
    assert_eq!(jobs.header("link"), "</api/jobs?queue=payment-links&limit=2&page=2>; rel=\"next\"");
    assert_eq!(app.get("/api/jobs?queue=payment-links&limit=2&page=2").await.header("link"), "");
    let timeline = app.get(&format!("/api/carts/{}/timeline?limit=1", ids[0])).await;
    let next = timeline.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    assert_eq!(app.get(&next).await.data(200)["events"][0]["kind"], "link_requested");
    let export = app.get("/api/erasure/export?email=ada@example.com&limit=2").await;
    let next = export.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    assert_eq!(app.get(&next).await.data(200)["records"]["carts"].as_array().unwrap().len(), 1);
}

/// Almost every response to a key has personal data.
#[tokio::test]
async fn responses_behind_a_key_are_private() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    for path in [
        "/api/carts",
        &format!("/api/carts/{id}"),
        &format!("/api/carts/{id}/timeline"),
        "/api/carts/export",
        "/api/analytics",
        "/api/jobs",
        "/api/nothing",
    ] {
        assert_eq!(app.get(path).await.header("cache-control"), "private, no-cache", "{path}");
    }
}

#[tokio::test]
async fn the_page_of_the_document_loads_only_files_of_ours() {
    let app = Setup::default().without_worker().start().await;
    let page = app.send(app.bare_request(Method::GET, "/docs")).await;
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let links = page.text.split('"').filter(|text| text.starts_with('/') || text.contains("//"));
    let pages = ["/", "/start", "/api/openapi.json"];
    let files: Vec<&str> = links.filter(|link| !pages.contains(link)).collect();
    assert_eq!(files.len(), 4, "an icon, a style sheet and two scripts: {files:?}");
    for file in files {
        let answer = app.send(app.bare_request(Method::GET, file)).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.header("cache-control").contains("immutable"), "{file}");
        let packed = app.bare_request(Method::GET, file).header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip", "{file}");
        assert!(packed.bytes().await.unwrap().len() < answer.text.len(), "{file}");
    }
}

#[tokio::test]
async fn a_cart_has_a_strong_etag_that_changes_with_its_content() {
    let app = Setup::default().at("2026-03-01T12:00:00Z").start().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let get = async |tag: &str| app.send(app.request(Method::GET, &path).header("if-none-match", tag)).await;
    let first = app.get(&path).await.header("etag").to_owned();
    assert!(first.starts_with('"'), "{first} is weak");
    assert_eq!(get(&first).await.status, 304);
    assert_eq!(get(&format!("\"x\", W/{first}")).await.status, 304);
    assert_eq!(get("*").await.status, 304);
    assert_eq!(get("\"x\"").await.status, 200);
    // The cart includes its link and the link's state.
    app.session(&id).await;
    let linked = get(&first).await;
    assert_eq!(linked.status, 200);
    let linked = linked.header("etag").to_owned();
    app.clock.advance(TimeDelta::days(2));
    assert_eq!(get(&linked).await.status, 200, "the link ran out");
    let changed = app.patch(&path, &json!({"status": "expired"})).await;
    let tag = changed.header("etag").to_owned();
    assert_eq!(get(&tag).await.status, 304, "PATCH answers the tag that GET has");
}

#[tokio::test]
async fn if_match_prevents_lost_updates() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let patch = async |tag: &str, status: &str| {
        let request = app.request(Method::PATCH, &path).header("if-match", tag);
        app.send(request.json(&json!({"status": status}))).await
    };
    let first = app.get(&path).await.header("etag").to_owned();
    patch("\"x\"", "expired").await.is_error(412, "PRECONDITION_FAILED");
    patch(&format!("W/{first}"), "expired").await.is_error(412, "PRECONDITION_FAILED");
    let second = patch(&format!("\"x\", {first}"), "expired").await;
    assert_eq!(second.status, 200);
    let second = second.header("etag").to_owned();
    patch(&first, "abandoned").await.is_error(412, "PRECONDITION_FAILED");
    assert_eq!(app.show(&id).await["status"], json!("expired"));
    assert_eq!(patch("*", "abandoned").await.status, 200);
    let delete = async |tag: &str| app.send(app.request(Method::DELETE, &path).header("if-match", tag)).await;
    delete(&second).await.is_error(412, "PRECONDITION_FAILED");
    let third = app.get(&path).await.header("etag").to_owned();
    delete(&third).await.data(200);
    delete(&third).await.is_error(404, "NOT_FOUND");
}

/// Of twenty concurrent changes with the same tag, one succeeds.
#[tokio::test]
async fn a_tag_is_checked_under_the_carts_lock() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let tag = app.get(&path).await.header("etag").to_owned();
    let patch = |status: &'static str| {
        let request = app.request(Method::PATCH, &path).header("if-match", &tag).json(&json!({"status": status}));
        app.send(request)
    };
    let answers = futures_util::future::join_all((0..20).map(|_| patch("expired"))).await;
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((done, answers.iter().filter(|answer| answer.status == 412).count()), (1, 19));
}

#[tokio::test]
async fn a_new_cart_has_a_location_header() {
    let app = Setup::default().without_worker().start().await;
    let created = app.post("/api/carts", &a_cart()).await;
    let location = created.header("location").to_owned();
    assert_eq!(app.get(&location).await.data(200), created.data(201));
}

#[tokio::test]
async fn rate_limit_headers_report_the_remaining_quota() {
    let app = Setup::default().set("RATE_LIMIT_PER_MINUTE", "3").without_worker().start().await;
    // The limit of three a minute allows one more every 20 s, so this must finish within 20 s.
    for (remaining, seconds) in [(2, 20), (1, 40), (0, 60)] {
        let answer = app.get("/api/carts").await;
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=3;w=60");
        assert_eq!(answer.header("ratelimit"), format!("\"default\";r={remaining};t={seconds}"));
    }
    let limited = app.get("/api/carts").await;
    limited.is_error(429, "RATE_LIMITED");
    let wait = limited.header("retry-after");
    assert_eq!(limited.header("ratelimit"), format!("\"default\";r=0;t={wait}"));
    assert_eq!(app.get("/healthz").await.header("ratelimit"), "", "probes are not counted");
    let unlimited = Setup::default().without_worker().start().await;
    assert_eq!(unlimited.get("/api/carts").await.header("ratelimit"), "");
}

#[tokio::test]
async fn head_works_wherever_get_does() {
    let app = App::new().await;
    let id = app.cart().await;
    let token = app.ask(&id).await.data(200)["recoveryUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let jobs = app.get("/api/jobs").await.data(200);
    let job = jobs["jobs"][0]["id"].as_str().unwrap();
    for operation in Contract::get().operations() {
        let Some(pattern) = operation.strip_prefix("GET ") else { continue };
        let id = if pattern.contains("/jobs/") { job } else { &id };
        let path = pattern.replace("{id}", id).replace("{token}", &token);
        let compared =
            |headers: &HeaderMap| ["content-type", "etag", "location"].map(|name| headers.get(name).cloned());
        // A schedule may run between the two requests and change the response.
        eventually(&format!("HEAD of {path} is answered as GET"), async || {
            let get = app.get(&path).await;
            let head = app.send(app.request(Method::HEAD, &path)).await;
            assert_eq!(head.text, "", "{path}");
            (head.status, compared(&head.headers)) == (get.status, compared(&get.headers))
        })
        .await;
    }
}

#[tokio::test]
async fn large_responses_are_compressed_on_request() {
    let app = Setup::default().without_worker().start().await;
    let small = app.cart().await;
    let items: Vec<Value> =
        (0..50).map(|n| json!({"name": format!("Teapot {n}"), "quantity": 1, "price": 1})).collect();
    let large = app.cart_of(&a_line(json!({"items": items}))).await;
    let get = async |path: String, encoding: &str| {
        let request = app.request(Method::GET, &path).header("accept-encoding", encoding);
        request.send().await.unwrap()
    };
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let path = format!("/api/carts/{large}");
    let plain = get(path.clone(), "identity").await;
    let tag = header(&plain, "etag");
    let whole = plain.bytes().await.unwrap();
    for encoding in ["gzip", "br"] {
        let answer = get(path.clone(), encoding).await;
        assert_eq!(
            (header(&answer, "content-encoding").as_str(), header(&answer, "vary").as_str()),
            (encoding, "accept-encoding")
        );
        let own = header(&answer, "etag");
        assert_eq!(own, format!("{}.{encoding}\"", tag.trim_end_matches('"')), "other bytes, another tag");
        assert!(answer.bytes().await.unwrap().len() < whole.len() / 4);
        // The tag still matches.
        let same = app.send(app.request(Method::GET, &path).header("if-none-match", &own)).await;
        assert_eq!(same.status, 304);
        let change = app.request(Method::PATCH, &path).header("if-match", &own).json(&json!({"status": "abandoned"}));
        assert_eq!(app.send(change).await.status, 200);
    }
    let answer = get(format!("/api/carts/{small}"), "gzip, br").await;
    assert_eq!(header(&answer, "content-encoding"), "", "it fits into a packet");
    let answer = get("/api/carts/export".to_owned(), "gzip").await;
    assert_eq!(header(&answer, "content-encoding"), "gzip");
}

/// The results of an import arrive during the upload; a compressor would buffer them.
#[tokio::test]
async fn compression_does_not_delay_import_results() {
    let app = Setup::default().without_worker().start().await;
    let line = format!("{}\n", a_cart());
    let request = app.request(Method::POST, "/api/carts/import").header("content-type", "application/x-ndjson");
    let answer = app.send(request.header("accept-encoding", "gzip, br").body(line.repeat(100))).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, ""));
    assert_eq!(answer.header("cache-control"), "no-store, no-transform");
    assert_eq!(answer.text.lines().count(), 101);
}

#[tokio::test]
async fn only_listed_origins_are_allowed() {
    let app = Setup::default()
        .set("CORS_ORIGINS", "https://shop.example, http://localhost:5173")
        .without_worker()
        .start()
        .await;
    let ask = async |app: &App, origin: &str| {
        let request = app.bare_request(Method::OPTIONS, "/api/carts").header("origin", origin);
        let request = request.header("access-control-request-method", "PATCH");
        request.header("access-control-request-headers", "authorization,x-api-key,if-match").send().await.unwrap()
    };
    for origin in ["https://shop.example", "http://localhost:5173"] {
        let answer = ask(&app, origin).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
            (200, &origin.parse().unwrap())
        );
        let read = app.send(app.request(Method::GET, "/api/carts").header("origin", origin)).await;
        assert_eq!(read.header("access-control-allow-origin"), origin);
        assert!(read.header("access-control-expose-headers").contains("etag"));
        // A web page can read the reason of a refusal, too.
        let refused = app.send(app.bare_request(Method::GET, "/api/carts").header("origin", origin)).await;
        refused.is_error(401, "UNAUTHORIZED");
        assert_eq!(refused.header("access-control-allow-origin"), origin);
    }
    assert!(!ask(&app, "https://other.example").await.headers().contains_key("access-control-allow-origin"));
    let closed = Setup::default().without_worker().start().await;
    let answer = ask(&closed, "https://shop.example").await;
    assert!(answer.status() == 401 && !answer.headers().contains_key("access-control-allow-origin"));
}

#[test]
fn malformed_origins_fail_the_start() {
    let variables = [("API_KEY", "k"), ("STRIPE_WEBHOOK_SECRET", "whsec_test"), ("CORS_ORIGINS", "*")];
    let error = common::config::Env::of(variables).read::<api::ApiConfig>().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"CORS_ORIGINS is "*"; it takes origins such as https://shop.example, without a path, separated by commas"#
    );
}
