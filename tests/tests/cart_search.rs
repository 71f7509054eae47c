use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::{App, Setup, a_cart};

fn of(email: &str) -> Value {
    let mut cart = a_cart();
    cart["customerEmail"] = json!(email);
    cart
}

/// The ids found, and the total.
async fn found(app: &App, query: &str) -> (Vec<String>, Value) {
    let list = app.get(&format!("/api/carts?{query}")).await.data(200);
    let id = |cart: &Value| cart["id"].as_str().unwrap().to_owned();
    (list["carts"].as_array().unwrap().iter().map(id).collect(), list["pagination"]["total"].clone())
}

#[tokio::test]
async fn carts_are_found_by_their_shoppers_address() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let mut of_ada = Vec::new();
    for n in 0..7 {
        let email = if n % 2 == 0 { "ada@example.com" } else { "Ada@Example.com" };
        of_ada.insert(0, app.cart_of(&of(email)).await);
        app.clock.advance(TimeDelta::seconds(1));
        app.cart_of(&of("adb@example.com")).await; // the same length
        app.cart_of(&of("xada@example.com")).await;
    }
    let all = (of_ada.clone(), json!(7));
    for email in ["ada@example.com", "ADA@EXAMPLE.COM", "ada%40example.com"] {
        assert_eq!(found(&app, &format!("email={email}")).await, all, "{email}");
    }
    for nobody in ["da@example.com", "ad_@example.com", "ada%25", "%C3%A4da@example.com"] {
        assert_eq!(found(&app, &format!("email={nobody}")).await, (Vec::new(), json!(0)), "{nobody}");
    }

    let link = app.ask(&of_ada[0]).await.data(200);
    let first = app.get("/api/carts?email=ada@example.com&limit=1").await.data(200);
    assert_eq!(first["carts"][0], app.show(&of_ada[0]).await, "a cart is the same wherever it is shown");
    assert_eq!(first["carts"][0]["paymentLink"], link["paymentLink"]);
    let pages = json!({"page": 1, "limit": 1, "total": 7, "totalPages": 7});
    for (name, value) in pages.as_object().unwrap() {
        assert_eq!(&first["pagination"][name], value, "{name}");
    }

    app.patch(&format!("/api/carts/{}", of_ada[2]), &json!({"status": "expired"})).await.data(200);
    assert_eq!(found(&app, "email=ada@example.com&status=expired").await, (vec![of_ada[2].clone()], json!(1)));
    assert_eq!(found(&app, "email=ada@example.com&status=abandoned").await.1, json!(6));
    assert_eq!(found(&app, "email=ada@example.com&page=3&limit=3").await, (vec![of_ada[6].clone()], json!(7)));
    assert_eq!(found(&app, "email=ada@example.com&page=4&limit=3").await, (Vec::new(), json!(7)));
    assert_eq!(found(&app, "email=").await.1, json!(21), "an empty parameter is none");

    app.delete(&format!("/api/carts/{}", of_ada[3])).await.data(200);
    assert_eq!(found(&app, "email=ada@example.com").await.1, json!(6));
    assert_eq!(found(&app, "email=%20ada@example.com%20").await.1, json!(6), "white space around it does not count");
    for bad in ["email=%00", "email=a%0Ab", "email=%20", "email=%C2%A0"] {
        app.get(&format!("/api/carts?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn a_cursor_continues_a_search() {
    let app = Setup::default().without_worker().start().await;
    // Many carts of the same time are ordered by id.
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, created_at)
         select 'cart_' || n, case when n % 3 = 0 then 'one@example.com' else 'two@example.com' end, 'n', '[]', 100, 'usd',
                now() - n / 10 * interval '1 hour' from generate_series(1, 300) n",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let expected: Vec<String> = sqlx::query_scalar(
        "select id from carts where customer_email = 'one@example.com' order by created_at desc, id desc",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let list = app.get(&format!("/api/carts?email=One@example.com&limit=7&cursor={cursor}")).await.data(200);
        assert_eq!(list["pagination"]["total"], json!(100));
        ids.extend(list["carts"].as_array().unwrap().iter().map(|cart| cart["id"].as_str().unwrap().to_owned()));
        match list["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(ids, expected);
}

/// Domains in Unicode and in ASCII, dots anywhere, NFC and NFD, other scripts, emoji, and quotes.
#[tokio::test]
async fn a_mailbox_is_found_by_any_of_its_spellings() {
    let app = Setup::default().without_worker().start().await;
    for spellings in [
        ["jörg@müller.example", "Jörg@müller.example", "jörg@xn--mller-kva.example", "JÖRG@MÜLLER.example"],
        ["hana..s.@docomo.ne.jp", "Hana..S.@DOCOMO.ne.jp", "\"hana..s.\"@docomo.ne.jp", "\"hana.\\.s.\"@docomo.ne.jp"],
        ["jos\u{e9}@example.com", "jose\u{301}@example.com", "JOSÉ@example.com", "\"josé\"@ｅｘａｍｐｌｅ.com"],
        ["अजय@डाटा.भारत", "अजय@XN--C2BD1GB.भारत", "अजय@डाटा。भारत", "\"अजय\"@डाटा.भारत"],
        [
            "👩\u{200d}💻@example.com",
            "👩\u{200d}💻@EXAMPLE.com",
            "\"👩\u{200d}💻\"@example.com",
            "👩\u{200d}💻@example．com",
        ],
        ["\"a b\"@example.com", "\"A B\"@example.com", "\"\\a b\"@example.com", "\"a\\ b\"@Example.com"],
    ] {
        let mut ids = Vec::new();
        for spelling in spellings {
            ids.insert(0, app.cart_of(&of(spelling)).await);
        }
        for spelling in spellings {
            let encoded: String = spelling.bytes().map(|byte| format!("%{byte:02X}")).collect();
            assert_eq!(found(&app, &format!("email={encoded}")).await, (ids.clone(), json!(4)), "{spelling}");
        }
    }
}
