//! A time that is accepted survives a round trip; all others are refused.

use serde_json::{Value, json};
use tests::{
    App, Setup, a_cart, a_line,
    imports::{NDJSON, import, ndjson},
};

const REFUSED: [&str; 9] = [
    "0000-01-01T00:00:00+23:59",
    "0000-01-01T00:00:00Z",
    "0000-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00+00:01",
    "2016-12-31T23:59:60Z",
    "2016-12-31T23:59:60.999Z",
    "2016-12-31T18:29:60-05:30",
    "2024-01-15T24:00:00Z",
    "2024-01-15",
];

/// Times as sent, and as returned.
const TAKEN: [(&str, &str); 8] = [
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("0000-12-31T23:59:00-00:01", "0001-01-01T00:00:00Z"),
    ("0001-01-01T23:59:00+23:59", "0001-01-01T00:00:00Z"),
    ("1582-10-10T00:00:00.000001Z", "1582-10-10T00:00:00.000001Z"),
    ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
    ("2016-12-31T23:59:59.999999999Z", "2016-12-31T23:59:59.999999Z"),
    ("2016-12-31t23:59:59z", "2016-12-31T23:59:59Z"),
    ("2024-02-29T12:00:00.120+05:45", "2024-02-29T06:15:00.120Z"),
];

async fn an_app() -> App {
    Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await
}

fn with(field: &str, value: &str) -> Value {
    let mut cart = a_cart();
    cart[field] = json!(value);
    cart
}

#[tokio::test]
async fn times_survive_a_round_trip() {
    let (app, by_ndjson, by_csv) = tokio::join!(an_app(), an_app(), an_app());
    for (sent, answered) in TAKEN {
        let made = app.post("/api/carts", &with("abandonedAt", sent)).await.data(201);
        assert_eq!(made["abandonedAt"], answered, "{sent}");
        let id = made["id"].as_str().unwrap();
        assert_eq!(app.show(id).await, made, "{sent}");
        let change = json!({"status": "recovered", "recoveredAt": sent});
        let changed = app.patch(&format!("/api/carts/{id}"), &change).await.data(200);
        assert_eq!(changed["recoveredAt"], answered, "{sent}");
        assert_eq!(app.show(id).await["recoveredAt"], answered, "{sent}");
    }
    let expired = TAKEN.map(|(sent, _)| a_line(json!({"abandonedAt": sent, "status": "expired", "expiredAt": sent})));
    let (_, summary) = import(&app, NDJSON, ndjson(expired)).await;
    assert_eq!(summary["created"], TAKEN.len());
    let times = async |app: &App| {
        let text = app.get("/api/carts/export").await.text;
        let carts = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut times: Vec<String> = carts
            .map(|cart| format!("{} {} {}", cart["abandonedAt"], cart["recoveredAt"], cart["expiredAt"]))
            .collect();
        times.sort();
        times
    };
    let expected = times(&app).await;
    assert_eq!(expected.len(), 2 * TAKEN.len());
    for (to, format, kind) in [(&by_ndjson, "ndjson", NDJSON), (&by_csv, "csv", "text/csv")] {
        let file = app.get(&format!("/api/carts/export?format={format}")).await.text;
        let (_, summary) = import(to, kind, file).await;
        assert_eq!((&summary["created"], &summary["errors"]), (&json!(expected.len()), &json!(0)), "{format}");
        assert_eq!(times(to).await, expected, "{format}");
    }
}

#[tokio::test]
async fn times_that_would_not_survive_a_round_trip_are_refused() {
    let app = an_app().await;
    let id = app.cart().await;
    for sent in REFUSED {
        let refused = app.post("/api/carts", &with("abandonedAt", sent)).await;
        assert_eq!(refused.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "abandonedAt", "{sent}");
        let change = json!({"status": "recovered", "recoveredAt": sent});
        let refused = app.patch(&format!("/api/carts/{id}"), &change).await;
        assert_eq!(refused.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "recoveredAt", "{sent}");
        let lines = [
            a_line(json!({"abandonedAt": sent})),
            a_line(json!({"status": "recovered", "recoveredAt": sent})),
            a_line(json!({"status": "expired", "expiredAt": sent})),
        ];
        let (_, summary) = import(&app, NDJSON, ndjson(lines)).await;
        assert_eq!((&summary["created"], &summary["errors"]), (&json!(0), &json!(3)), "{sent}");
        let csv = format!(
            "customerEmail,customerName,items,abandonedAt\nada@example.com,Ada,\"[{{\"\"name\"\":\"\"T\"\",\"\"quantity\"\":1,\"\"price\"\":1}}]\",{sent}\n"
        );
        assert_eq!(import(&app, "text/csv", csv).await.1["errors"], 1, "{sent}");
    }
    for sent in REFUSED.iter().filter(|sent| **sent != "2024-01-15").map(|sent| sent.replace('+', "%2B")) {
        for query in ["carts/export?from", "carts/export?to", "analytics?startDate", "analytics?endDate"] {
            app.get(&format!("/api/{query}={sent}")).await.is_error(400, "BAD_REQUEST");
        }
    }
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], 1);
}
