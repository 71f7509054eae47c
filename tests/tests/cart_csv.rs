//! CSV as shops and spreadsheets write it.

use std::{fmt::Write as _, process::Command};

use serde_json::{Value, json};
use tests::{
    App, Setup, exact,
    imports::{import, send},
};

const ITEMS: &str = r#""[{""name"":""Tea, green; 你好"",""quantity"":2,""price"":4.50}]""#;

async fn an_app() -> App {
    Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await
}

/// The carts of a file that has no errors, in its order.
async fn carts(app: &App, kind: &str, file: impl Into<reqwest::Body>) -> Vec<Value> {
    let (lines, summary) = import(app, kind, file).await;
    assert_eq!(summary["errors"], 0, "{lines:?}");
    let mut carts = Vec::new();
    for line in lines {
        carts.push(app.show(line["id"].as_str().unwrap()).await);
    }
    carts
}

#[tokio::test]
async fn every_separator_and_encoding_is_read() {
    let app = an_app().await;
    let mut files = Vec::new();
    for separator in [",", ";", "\t"] {
        let line = |cells: [&str; 4]| format!("{}\r\n", cells.join(separator));
        let header = line(["customerEmail", "\"customerName\"", "unknown", "items"]);
        let cart = line(["zoe@example.com", "\"Zoë, 😀; \tWeiß\"", "", ITEMS]);
        files.push(format!("{header}{cart}"));
        files.push(format!("sep={separator}\r\n{header}\r\n{cart}"));
    }
    for file in files {
        let marked = format!("\u{feff}{file}");
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { marked.encode_utf16().flat_map(bytes).collect() };
        for (charset, body) in [
            ("", file.clone().into_bytes()),
            ("; charset=\"UTF-8\"", marked.clone().into_bytes()),
            ("; charset=utf-16", utf16(u16::to_le_bytes)),
            ("", utf16(u16::to_be_bytes)),
        ] {
            let cart = carts(&app, &format!("text/csv{charset}"), body).await.remove(0);
            assert_eq!(cart["customerName"], "Zoë, 😀; \tWeiß", "{file} {charset}");
            assert_eq!((&cart["items"][0]["name"], &cart["totalValue"]), (&json!("Tea, green; 你好"), &exact("9.00")));
        }
    }
}

#[tokio::test]
async fn other_encodings_and_separators_are_refused() {
    let app = an_app().await;
    let file = format!("customerEmail,items\na@example.com,{ITEMS}\n");
    for charset in ["iso-8859-1", "windows-1252", "\"latin1\"", "utf-32", ""] {
        let kind = format!("text/csv; header=present; charset={charset}");
        send(&app, &kind, file.clone()).await.is_error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    send(&app, "application/x-ndjson; charset=latin1", "").await.is_error(415, "UNSUPPORTED_MEDIA_TYPE");
    let unmarked: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
    send(&app, "text/csv", unmarked).await.is_error(400, "BAD_REQUEST");
    send(&app, "text/csv", format!("sep=|\n{file}")).await.is_error(400, "BAD_REQUEST");
    send(&app, "text/csv", "x,".repeat(600_000)).await.is_error(400, "BAD_REQUEST");
    // Windows-1252 without a charset, a lone surrogate, and half a character: errors of their lines.
    let latin = [file.as_bytes(), b"z@example.com,Zo\xeb\n", file.as_bytes()].concat();
    let (lines, summary) = import(&app, "text/csv", latin).await;
    assert_eq!((&summary["created"], &summary["errors"]), (&json!(2), &json!(2)), "{lines:?}");
    let mut utf16: Vec<u8> =
        "\u{feff}customerEmail,items\na@example.com,".encode_utf16().flat_map(u16::to_le_bytes).collect();
    utf16.extend(0xd83d_u16.to_le_bytes().into_iter().chain(*b"\n\0b"));
    let (lines, _) = import(&app, "text/csv", utf16).await;
    let errors: Vec<(&Value, &Value)> = lines.iter().map(|line| (&line["line"], &line["error"]["code"])).collect();
    assert_eq!(errors, [(&json!(2), &json!("BAD_REQUEST")), (&json!(3), &json!("BAD_REQUEST"))]);
}

#[tokio::test]
async fn a_cart_may_have_a_line_for_each_item() {
    let app = an_app().await;
    let file = "externalId;customerEmail;customerName;itemName;itemQuantity;itemPrice;discount\n\
        A;ada@example.com;Ada;Tea;2;4,50;1,00\n\
        A;;;Cup;1;1.234,00;\n\
        ;b@example.com;Bob;Pot;1;30;\n\
        ;b@example.com;Bob;Pot;1;30;\n\
        C;c@example.com;Cy;Pot;1;30;\n\
        C;;;Pan;1;1.234;\n\
        C;;;;1;-1;\n\
        D;d@example.com;Di;Pot;1;1,50;\n";
    let (lines, summary) = import(&app, "text/csv", file).await;
    assert_eq!(summary, json!({"lines": 5, "created": 4, "exists": 0, "errors": 1}));
    let numbers: Vec<u64> = lines.iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 4, 5, 6, 9]);
    let ada = app.show(lines[0]["id"].as_str().unwrap()).await;
    assert_eq!((&ada["customerName"], &ada["totalValue"]), (&json!("Ada"), &exact("1242.00")));
    assert_eq!(ada["items"].as_array().unwrap().len(), 2);
    let messages: Vec<String> = lines[3]["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| format!("{} {}", error["field"].as_str().unwrap(), error["message"].as_str().unwrap()))
        .collect();
    assert_eq!(messages[0], "items[1].price could mean 1234 or 1.2340: write one of these (line 7)");
    assert!(messages.iter().any(|message| message.starts_with("items[2].name ") && message.ends_with(" (line 8)")));
    assert!(messages.iter().any(|message| message.starts_with("items[2].price ") && message.ends_with(" (line 8)")));
    for header in ["customerEmail,items,itemName", "customerEmail,customerName", "customerEmail,itemName,itemPrice"] {
        send(&app, "text/csv", header).await.is_error(422, "VALIDATION_ERROR");
    }
    // The last cart of a body that ends without a line break, and one without an end.
    let mut endless = "externalId,customerEmail,itemName,itemQuantity,itemPrice\n".to_owned();
    for _ in 0..20_000 {
        writeln!(endless, "E,e@example.com,Tea,1,1").unwrap();
    }
    let (lines, summary) = import(&app, "text/csv", format!("{endless}F,f@example.com,Tea,1,1")).await;
    assert_eq!((&summary["created"], &summary["errors"]), (&json!(1), &json!(1)));
    assert_eq!((&lines[0]["line"], &lines[1]["line"]), (&json!(2), &json!(20_002)));
}

/// The file in `examples/`, with its columns renamed as docs/api.md shows.
fn renamed(example: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let docs = std::fs::read_to_string(format!("{root}/docs/api.md")).unwrap();
    let (before, _) = docs.split_once(&format!("{example} >carts.csv")).unwrap();
    let (_, command) = before.rsplit_once("```sh\n").unwrap();
    let output = Command::new("sh").args(["-c", &format!("{command}{example}")]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn exports_of_shops_go_in_after_renaming_columns() {
    let app = an_app().await;
    let shopify = carts(&app, "text/csv", renamed("shopify.csv")).await;
    assert_eq!(shopify.len(), 3);
    let ada = &shopify[0];
    assert_eq!((&ada["externalId"], &ada["customerName"]), (&json!("#C1001"), &json!("Ada Lovelace")));
    assert_eq!((&ada["totalValue"], &ada["currency"]), (&exact("94.90"), &json!("usd")));
    assert_eq!((&ada["abandonedAt"], &ada["acceptsMarketing"]), (&json!("2026-01-15T15:30:00Z"), &json!(true)));
    assert_eq!(
        ada["items"],
        json!([
            {"name": "Teapot - Blue", "quantity": 1, "price": exact("79.99"), "sku": "TEAPOT-BL"},
            {"name": "Cup \"Ada\", 2 pieces", "quantity": 1, "price": exact("20.01"), "sku": "CUP-2"},
        ])
    );
    assert_eq!(
        ada["adjustments"],
        json!([{"name": "Shipping", "amount": exact("4.90")}, {"name": "Discount", "amount": exact("-10.00")}])
    );
    assert_eq!((&shopify[1]["totalValue"], &shopify[1]["acceptsMarketing"]), (&exact("38.97"), &json!(false)));
    let guest = &shopify[2];
    assert_eq!((&guest["customerName"], &guest["acceptsMarketing"]), (&Value::Null, &Value::Null));
    assert_eq!((&guest["totalValue"], &guest["currency"]), (&json!(98_000), &json!("jpy")));

    let woocommerce = carts(&app, "text/csv", renamed("woocommerce.csv")).await;
    assert_eq!(woocommerce.len(), 2);
    let totals = [&woocommerce[0]["totalValue"], &woocommerce[1]["totalValue"]];
    assert_eq!(totals, [&exact("1474.29"), &exact("45.00")]);
    assert_eq!((&woocommerce[0]["customerName"], &woocommerce[0]["currency"]), (&json!("Jörg Müller"), &json!("eur")));
    assert_eq!(woocommerce[0]["items"].as_array().unwrap().len(), 2);
    assert_eq!(woocommerce[1]["items"][0]["quantity"], exact("1.25"));
    // A total that the amounts do not add up to is refused, and both are named.
    let wrong = renamed("shopify.csv").replace(",94.90,", ",94.91,").replace("#C1001", "#C2001");
    let (lines, _) = import(&app, "text/csv", wrong).await;
    assert_eq!(lines[0]["error"]["details"][0]["field"], "totalValue", "{lines:?}");
}

#[tokio::test]
async fn an_export_for_excel_begins_with_a_byte_order_mark() {
    let (app, other) = tokio::join!(an_app(), an_app());
    let file = format!("customerEmail,customerName,items\nz@example.com,Zoë,{ITEMS}\n");
    carts(&app, "text/csv", file).await;
    let export = app.get("/api/carts/export?format=csv&bom=1").await;
    let plain = app.get("/api/carts/export?format=csv&bom=0").await.text;
    assert_eq!(export.status, 200);
    assert_eq!(export.text, format!("\u{feff}{plain}"));
    assert_eq!(plain, app.get("/api/carts/export?format=csv").await.text);
    assert_eq!(carts(&other, "text/csv", export.text).await[0]["customerName"], "Zoë");
    for query in ["format=csv&bom=2", "format=csv&bom=true", "bom=1", "format=ndjson&bom=1"] {
        app.get(&format!("/api/carts/export?{query}")).await.is_error(400, "BAD_REQUEST");
    }
}
