use std::collections::BTreeMap;

use chrono::{DateTime, Days, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    App, Setup, UNKNOWN_FIELD, a_line,
    imports::{NDJSON, answers, import, ndjson, send},
};

pub(crate) async fn count(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from carts").fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn each_line_has_its_result_in_order() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let bad =
        json!({"customerEmail": "nobody", "customerName": "B", "items": [{"name": "x", "quantity": 0, "price": 1}]});
    let body = [
        a_line(json!({UNKNOWN_FIELD: "is ignored"})).to_string(),
        a_line(json!({"externalId": "order 7"})).to_string(),
        String::new(),
        "{\"customerEmail\":".to_owned(),
        a_line(json!({"externalId": "order 7", "customerName": "Somebody else"})).to_string(),
        bad.to_string(),
        "[]".to_owned(),
        a_line(json!({"status": "recovered", "abandonedAt": "2026-02-01T00:00:00Z", "recoveredAt": "2026-02-03T00:00:00Z"}))
            .to_string(),
        a_line(json!({"status": "expired", "abandonedAt": "2026-01-01T00:00:00Z"})).to_string(),
    ];
    let (lines, summary) = import(&app, NDJSON, body.join("\r\n")).await;
    assert_eq!(summary, json!({"lines": 8, "created": 4, "exists": 1, "errors": 3}));
    let numbers: Vec<u64> = lines.iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 9]);
    let seventh = lines[1]["id"].as_str().unwrap();
    assert_eq!(lines[1], json!({"line": 2, "status": "created", "id": seventh}));
    assert_eq!(lines[3], json!({"line": 5, "status": "exists", "id": seventh, "externalId": "order 7"}));
    assert_eq!((&lines[2]["status"], &lines[2]["error"]["code"]), (&json!("error"), &json!("BAD_REQUEST")));
    assert_eq!(
        lines[4],
        json!({"line": 6, "status": "error", "error": {
            "code": "VALIDATION_ERROR", "message": "customerEmail must be an e-mail address",
            "details": [
                {"field": "customerEmail", "message": "must be an e-mail address"},
                {"field": "items[0].quantity", "message": "must be more than 0 and at most 1000000"},
            ],
        }})
    );
    assert_eq!(lines[5]["error"]["code"], "VALIDATION_ERROR");
    // An imported cart is like any other.
    let mut shown = app.show(lines[6]["id"].as_str().unwrap()).await;
    assert_eq!(shown["recoveredAt"].take(), json!("2026-02-03T00:00:00Z"));
    assert_eq!(
        (shown["status"].take(), shown["createdAt"].take()),
        (json!("recovered"), json!("2026-03-01T10:00:00Z"))
    );
    assert_eq!((&shown["externalId"], &shown["recoveredBy"]), (&Value::Null, &json!("import")));
    assert_eq!(app.show(seventh).await["externalId"], "order 7");
    let expired = app.show(lines[7]["id"].as_str().unwrap()).await;
    assert_eq!((&expired["status"], &expired["expiredAt"]), (&json!("expired"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(app.show(seventh).await["customerName"], "Ada Lovelace", "what exists is not changed");
    assert_eq!(app.unfinished_jobs().await, 0);
}

#[tokio::test]
async fn importing_a_file_again_creates_no_duplicates() {
    let app = Setup::default().without_worker().start().await;
    let line = |n: usize| a_line(json!({"externalId": format!("order {n}")}));
    let forwards = ndjson((0..2_500).map(line));
    let backwards = ndjson((0..2_500).rev().map(line));
    let (one, other) = tokio::join!(import(&app, NDJSON, forwards.clone()), import(&app, NDJSON, backwards));
    assert_eq!(count(&app).await, 2_500);
    let of = |summary: &Value, what: &str| summary[what].as_u64().unwrap();
    assert_eq!(of(&one.1, "created") + of(&other.1, "created"), 2_500);
    assert_eq!(of(&one.1, "exists") + of(&other.1, "exists"), 2_500);
    // Both imports returned the same ids.
    for (line, same) in one.0.iter().zip(other.0.iter().rev()) {
        assert_eq!(line["id"], same["id"]);
    }
    let (again, summary) = import(&app, NDJSON, forwards).await;
    assert_eq!(summary, json!({"lines": 2500, "created": 0, "exists": 2500, "errors": 0}));
    assert!(again.iter().zip(&one.0).all(|(line, before)| line["id"] == before["id"]));
    // Deleting a cart frees its external id.
    app.delete(&format!("/api/carts/{}", again[0]["id"].as_str().unwrap())).await.data(200);
    let (made_anew, _) = import(&app, NDJSON, line(0).to_string()).await;
    assert_eq!(made_anew[0]["status"], "created");
}

#[tokio::test]
async fn csv_is_read_as_spreadsheets_write_it() {
    let app = Setup::default().without_worker().start().await;
    let body = "\u{feff}externalId,\"customerName\",customerEmail,items,status,abandonedAt,recoveredAt,expiredAt,unknownFieldOfATest\r\n\
        A-1,\"Lovelace, \"\"Ada\"\"\r\nCountess\",ada@example.com,\"[{\"\"name\"\":\"\"Tea, green\"\",\"\"quantity\"\":2,\"\"price\"\":4.50}]\",recovered,2026-01-01T00:00:00Z,,,x\r\n\
        \r\n\
        ,Grace,grace@example.com,\"[{\"\"name\"\":\"\"x\"\",\"\"quantity\"\":1,\"\"price\"\":1}]\",,,,,\r\n\
        A-1,again,ada@example.com,\"[{\"\"name\"\":\"\"x\"\",\"\"quantity\"\":1,\"\"price\"\":1}]\",,,,,\r\n\
        ,Bad,bad@example.com,not json,,,,,\r\n\
        ,Few,few@example.com\r\n\
        ,'=Formula,f@example.com,\"[{\"\"name\"\":\"\"x\"\",\"\"quantity\"\":1,\"\"price\"\":0.001}]\",,,,,";
    let (lines, summary) = import(&app, "text/csv; charset=utf-8", body).await;
    assert_eq!(summary, json!({"lines": 6, "created": 2, "exists": 1, "errors": 3}));
    // Line numbers as in a spreadsheet: the header is 1, the empty row is 3.
    let places: Vec<(u64, &str)> =
        lines.iter().map(|line| (line["line"].as_u64().unwrap(), line["status"].as_str().unwrap())).collect();
    let status = ["created", "created", "exists", "error", "error", "error"];
    assert_eq!(places, [2, 4, 5, 6, 7, 8].into_iter().zip(status).collect::<Vec<_>>());
    let ada = app.show(lines[0]["id"].as_str().unwrap()).await;
    assert_eq!(ada["customerName"], "Lovelace, \"Ada\"\r\nCountess");
    assert_eq!((&ada["items"][0]["name"], ada["totalValue"].as_f64()), (&json!("Tea, green"), Some(9.0)));
    assert_eq!((&ada["status"], &ada["recoveredAt"]), (&json!("recovered"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(lines[3]["error"]["details"][0]["field"], "items");
    assert_eq!(lines[4]["error"]["code"], "BAD_REQUEST");
    assert_eq!(lines[5]["error"]["details"][0]["field"], "items[0].price");
}

#[tokio::test]
async fn malformed_imports_return_an_error_envelope() {
    let app = Setup::default().without_worker().start().await;
    for kind in ["application/json", "text/plain", "multipart/form-data", ""] {
        send(&app, kind, a_line(json!({})).to_string()).await.is_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let compressed = app.request(Method::POST, "/api/carts/import").header("content-type", NDJSON);
    app.send(compressed.header("content-encoding", "gzip").body("x")).await.is_error(415, "UNSUPPORTED_MEDIA_TYPE");
    let keyless = app.bare_request(Method::POST, "/api/carts/import").header("content-type", NDJSON);
    app.send(keyless.body("{}")).await.is_error(401, "UNAUTHORIZED");
    app.send(app.bare_request(Method::GET, "/api/carts/export")).await.is_error(401, "UNAUTHORIZED");
    app.get("/api/carts/import").await.is_error(405, "METHOD_NOT_ALLOWED");
    send(&app, "text/csv", "").await.is_error(400, "BAD_REQUEST");
    let headless = send(&app, "text/csv", "ada@example.com,Ada,[]\n".repeat(100_000)).await;
    let details = headless.is_error(422, "VALIDATION_ERROR")["details"].clone();
    let fields: Vec<&str> = details.as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["customerEmail", "items"]);
    // A file without lines is valid.
    for (kind, body) in
        [(NDJSON, ""), ("application/jsonlines", "\n\n"), ("text/csv", "items,customerName,customerEmail")]
    {
        let (lines, summary) = import(&app, kind, body).await;
        assert_eq!((lines.len(), summary), (0, json!({"lines": 0, "created": 0, "exists": 0, "errors": 0})));
    }
    let minimal = app.request(Method::POST, "/api/carts/import").header("content-type", NDJSON);
    let minimal =
        app.send(minimal.header("prefer", "return=minimal").body(format!("{}\nnull", a_line(json!({}))))).await;
    assert_eq!(minimal.header("preference-applied"), "return=minimal");
    let (lines, summary) = answers(&minimal);
    assert_eq!((lines.len(), &lines[0]["line"]), (1, &json!(2)));
    assert_eq!(summary, json!({"lines": 2, "created": 1, "exists": 0, "errors": 1}));
}

#[tokio::test]
async fn an_imported_history_counts_in_analytics() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let now: DateTime<Utc> = app.now();
    let mut days: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut dice: u64 = 7;
    for n in 0..3_000 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let left = now - TimeDelta::minutes(i64::try_from(dice >> 33).unwrap() % (60 * 24 * 60));
        let cents = (dice >> 20) % 10_000;
        let price: Value = serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap();
        let (status, later) = (["abandoned", "recovered", "expired"][n % 3], (left + TimeDelta::hours(30)).min(now));
        let mut line = a_line(json!({"status": status, "abandonedAt": left}));
        line["items"] = json!([{"name": "x", "quantity": 1, "price": price}]);
        let day = days.entry(left.date_naive().to_string()).or_default();
        *day = [day[0] + 1, day[1] + cents, day[2], day[3]];
        if status == "recovered" {
            line["recoveredAt"] = json!(later);
            let day = days.entry(later.date_naive().to_string()).or_default();
            *day = [day[0], day[1], day[2] + 1, day[3] + cents];
        }
        lines.push(line);
    }
    let (_, summary) = import(&app, "application/jsonl", ndjson(lines)).await;
    assert_eq!(summary, json!({"lines": 3000, "created": 3000, "exists": 0, "errors": 0}));
    let first = now.date_naive() - Days::new(61);
    let stats = app.get(&format!("/api/analytics?startDate={first}")).await.data(200)["dailyStats"].take();
    for stat in stats.as_array().unwrap() {
        let cents = |amount: &Value| (amount.as_f64().unwrap() * 100.0).round() as u64;
        let [abandoned, abandoned_cents, recovered, recovered_cents] =
            days.remove(stat["date"].as_str().unwrap()).unwrap_or_default();
        assert_eq!((stat["abandoned"].as_u64(), stat["recovered"].as_u64()), (Some(abandoned), Some(recovered)));
        assert_eq!(cents(&stat["abandonedValue"]), abandoned_cents);
        assert_eq!(cents(&stat["recoveredValue"]), recovered_cents);
    }
    assert!(days.is_empty());
    let expired = app.get("/api/carts?status=expired&limit=1").await.data(200);
    assert_eq!(expired["pagination"]["total"], 1_000);
}
