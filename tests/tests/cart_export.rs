use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    App, Setup, a_cart, a_line, exact,
    imports::{NDJSON, import, ndjson},
    shown_cart,
};

async fn export(app: &App, query: &str) -> String {
    let answer = app.get(&format!("/api/carts/export{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

/// The exported fields, without those specific to the store.
async fn carts(app: &App) -> Vec<Value> {
    let text = export(app, "").await;
    let mut carts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for cart in &mut carts {
        for field in ["id", "createdAt", "updatedAt"] {
            assert!(cart.as_object_mut().unwrap().remove(field).is_some(), "{field}");
        }
    }
    carts
}

fn a_history() -> Vec<Value> {
    let mut lines: Vec<Value> = (1..=1_200)
        .map(|n| {
            let left = format!("2026-02-{:02}T{:02}:00:00.123456Z", n % 28 + 1, n % 24);
            let status = ["abandoned", "recovered", "expired"][n % 3];
            a_line(json!({"status": status, "abandonedAt": left, "externalId": format!("order {n}")}))
        })
        .collect();
    let price: Value = serde_json::from_str("999999.90").unwrap();
    lines.push(a_line(json!({
        "customerName": "=cmd|' /C calc'!A0", "customerEmail": "+tag@example.com", "externalId": "'-1",
        "items": [{"name": "say \"hi\", 你好\nthere", "quantity": 10_000, "price": price}, {"name": "=1", "quantity": 1, "price": 0}],
    })));
    lines.push(a_line(
        json!({"customerName": "'t Hooft", "currency": "jpy", "items": [{"name": "x", "quantity": 1, "price": 500}]}),
    ));
    lines.push(a_line(json!({"customerName": "two\r\nlines"})));
    lines.push(a_line(json!({
        "customerName": null, "currency": "kwd", "locale": "de-AT", "acceptsMarketing": false,
        "items": [
            {"name": "Tea, loose", "quantity": exact("1.125"), "price": exact("8.000"), "sku": "=T;-1"},
            {"name": "Cup", "quantity": 3, "price": exact("0.333333"), "total": exact("1.000"),
             "url": "https://shop.example/cup?a=1;b", "imageUrl": "https://shop.example/cup.jpg"},
        ],
        "adjustments": [{"name": "-10 %", "amount": exact("-0.500")}, {"name": "Shipping", "amount": exact("4.9")}],
        "metadata": {"=channel": "+web;-1", "note": "two\nlines"},
    })));
    lines.push(a_line(json!({"acceptsMarketing": true, "adjustments": [{"name": "Tax", "amount": 1}]})));
    lines.push(a_line(json!({
        "customerName": "x;=1+cmd|' /C calc'!A1;'-1", "externalId": "＝1＋1",
        "items": [{"name": ";=1", "quantity": 1, "price": 1}, {"name": "@x\";+1", "quantity": 1, "price": 1}],
    })));
    lines
}

#[tokio::test]
async fn an_export_can_be_imported_elsewhere() {
    let start = || Setup::default().at("2026-03-01T10:00:00Z").without_worker().start();
    let (from, by_ndjson, by_csv) = tokio::join!(start(), start(), start());
    let (_, summary) = import(&from, NDJSON, ndjson(a_history())).await;
    assert_eq!((&summary["created"], &summary["errors"]), (&json!(1_206), &json!(0)));
    let expected = carts(&from).await;
    assert_eq!(expected.len(), 1_206);
    assert_eq!(expected[0]["externalId"], "order 1", "in the order of the file");
    for (to, query, kind) in [(&by_ndjson, "?format=ndjson", NDJSON), (&by_csv, "?format=csv", "text/csv")] {
        let (_, summary) = import(to, kind, export(&from, query).await).await;
        assert_eq!(summary, json!({"lines": 1206, "created": 1206, "exists": 0, "errors": 0}));
        assert_eq!(carts(to).await, expected);
        for path in
            ["/api/analytics?period=30d", "/api/carts?status=recovered&limit=1", "/api/carts?status=expired&limit=1"]
        {
            let (mut there, mut here) = (to.get(path).await.data(200), from.get(path).await.data(200));
            for data in [&mut there, &mut here] {
                data.as_object_mut().unwrap().remove("carts");
                data["pagination"].as_object_mut().map(|pagination| pagination.remove("nextCursor"));
            }
            assert_eq!(there, here, "{path}");
        }
        // A second import changes nothing, except for carts without an external id.
        let (_, again) = import(to, kind, export(&from, query).await).await;
        assert_eq!((&again["exists"], &again["created"]), (&json!(1_202), &json!(4)));
    }
    let csv = export(&from, "?format=csv").await;
    let formula = csv.lines().find(|line| line.contains("calc")).unwrap();
    assert!(formula.contains(r#",''-1,'+tag@example.com,'=cmd|' /C calc'!A0,"[{""name"":"#), "{formula}");
    let other = csv.lines().find(|line| line.contains("A1")).unwrap();
    assert!(other.contains(r#",'＝1＋1,"#) && other.contains(r#",x;'=1+cmd|' /C calc'!A1;''-1,"#), "{other}");
    assert!(![";=", ";+", "\"@", ",@"].iter().any(|formula| other.contains(formula)), "{other}");
}

#[tokio::test]
async fn an_export_honours_its_filters() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let cart = app.cart().await;
    app.clock.advance(chrono::TimeDelta::days(1));
    import(&app, NDJSON, a_line(json!({"status": "expired", "externalId": "E"})).to_string()).await;
    let as_json = app.get("/api/carts/export").await;
    assert_eq!(as_json.header("content-type"), NDJSON);
    assert_eq!(as_json.header("content-disposition"), "attachment; filename=\"carts-2026-03-02.ndjson\"");
    let first: Value = serde_json::from_str(as_json.text.lines().next().unwrap()).unwrap();
    assert_eq!(first, shown_cart(&cart, "2026-03-01T10:00:00Z"));
    let accepting =
        app.request(Method::GET, "/api/carts/export?status=abandoned").header("accept", "text/csv;q=0.9, */*");
    let as_csv = app.send(accepting).await;
    assert_eq!(as_csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        as_csv.text,
        format!(
            "id,externalId,customerEmail,customerName,items,adjustments,totalValue,currency,status,recoveredBy,paidValue,refundedValue,\
             locale,acceptsMarketing,metadata,abandonedAt,recoveredAt,expiredAt,paymentLink,paymentLinkExpiresAt,createdAt,updatedAt\n\
             {cart},,ada@example.com,Ada Lovelace,\"[{{\"\"name\"\":\"\"Teapot\"\",\"\"quantity\"\":2,\"\"price\"\":49.99}}]\",[],99.98,usd,abandoned,,,,\
             ,,{{}},2026-03-01T10:00:00Z,,,,,2026-03-01T10:00:00Z,2026-03-01T10:00:00Z\n"
        )
    );
    for (query, lines) in [
        ("?status=expired", 1),
        ("?status=recovered", 0),
        ("?from=2026-03-02", 1),
        ("?to=2026-03-02", 1),
        ("?from=2026-03-01T10:00:00Z&to=2026-03-02T10:00:00Z", 1),
        ("?from=2026-03-03", 0),
        ("?status=expired&to=2026-03-02", 0),
    ] {
        assert_eq!(export(&app, query).await.lines().count(), lines, "{query}");
    }
    for query in ["?format=xml", "?status=lost", "?from=yesterday"] {
        app.get(&format!("/api/carts/export{query}")).await.is_error(400, "BAD_REQUEST");
    }
    // Items stored by hand may contain line breaks; an exported line must not.
    sqlx::query("update carts set items = E'[\\n{\"name\":\"x\",\"quantity\":1,\"price\":1}\\n]' where id = $1")
        .bind(&cart)
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(export(&app, "").await.lines().count(), 2);
}

#[tokio::test]
async fn an_interrupted_export_is_visibly_incomplete() {
    let app = Setup::default().without_worker().behind_a_door().start().await;
    let door = app.door.as_ref().unwrap();
    let cart = a_cart();
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         select 'cart_' || i, 'a@example.com', repeat('n', 5000), $1, 1, 'usd' from generate_series(1, 20000) i",
    )
    .bind(&cart["items"])
    .execute(&app.pool)
    .await
    .unwrap();
    // The export sends some carts and then stops; more carts exist than the buffers hold.
    let mut response = app.request(Method::GET, "/api/carts/export").send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    door.close().await;
    let broken_off = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken_off);
    app.get("/api/carts/export").await.is_error(503, "UNAVAILABLE");
}
