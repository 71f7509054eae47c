//! People, and everything that can happen to their carts.

use chrono::TimeDelta;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};

use crate::{
    Answer, App,
    events::event,
    eventually,
    imports::{NDJSON, import, ndjson},
};

/// A person whose data occurs nowhere else in the tests or the product.
#[derive(Debug)]
pub struct Person {
    /// The address, as most of the carts have it.
    pub email: &'static str,
    /// The address, spelled otherwise.
    pub other_spelling: &'static str,
    name: &'static str,
    item: &'static str,
    /// Texts in lower case that identify the person.
    pub words: &'static [&'static str],
}

/// One person.
pub const ZEBEDEE: Person = Person {
    email: "zebedee.quill@private.example",
    other_spelling: "Zebedee.QUILL@Private.Example",
    name: "Zebedee Quillfeather",
    item: "Kaleidoscope for Zebedee",
    words: &["zebedee", "quill", "kaleidoscope", "private.example"],
};

/// Another person.
pub const GRACE: Person = Person {
    email: "grace@navy.example",
    other_spelling: "GRACE@navy.example",
    name: "Grace Hopper",
    item: "Nanosecond of wire",
    // Ids are random: "grace" alone could occur in a TypeID.
    words: &["grace@", "grace hopper", "nanosecond", "navy.example"],
};

impl Person {
    /// A body for `POST /api/carts`.
    pub fn cart(&self) -> Value {
        let page = format!("https://shop.example/{}", self.words[2]);
        let item = json!({
            "name": self.item, "quantity": 2, "price": 49.99, "sku": self.item, "url": page, "imageUrl": page,
        });
        json!({
            "customerEmail": self.email, "customerName": self.name, "items": [item], "locale": "en-GB",
            "adjustments": [{"name": format!("Coupon: {}", self.item), "amount": 0}], "acceptsMarketing": true,
            "metadata": {"note": self.name},
        })
    }

    /// The `Idempotency-Key` of the first cart.
    pub fn key(&self) -> String {
        format!("{}, first try", self.name)
    }
}

/// The data that a person left behind.
#[derive(Debug)]
pub struct Life {
    /// The cart that was stored under an `Idempotency-Key`, and paid.
    pub paid: String,
    /// The path of the open recovery link.
    pub recovery_path: String,
    /// The ids of all carts.
    pub carts: Vec<String>,
    /// URLs that reveal the person to their holder.
    pub addresses: Vec<String>,
}

/// Stores a cart under an `Idempotency-Key`.
pub async fn create(app: &App, key: &str, body: &Value) -> Answer {
    app.send(app.request(Method::POST, "/api/carts").header("idempotency-key", key).json(body)).await
}

/// Does everything that can happen to a person's carts.
///
/// # Panics
/// If anything is refused.
pub async fn live(app: &App, person: &Person) -> Life {
    let mut addresses = Vec::new();
    let mut links = async |id: &str| -> String {
        let link = app.ask(id).await.data(200);
        let of = |name: &str| link[name].as_str().unwrap().to_owned();
        addresses.extend([of("paymentLink"), of("recoveryUrl").rsplit('/').next().unwrap().to_owned()]);
        of("recoveryUrl").strip_prefix(&app.url("")).unwrap().to_owned()
    };

    // Stored under a key, linked, read, expired, reopened, linked again, paid.
    let paid = create(app, &person.key(), &person.cart()).await.data(201)["id"].as_str().unwrap().to_owned();
    let path = links(&paid).await;
    assert_eq!(app.send(app.bare_request(Method::POST, &path)).await.status, 303);
    app.patch(&format!("/api/carts/{paid}"), &json!({"status": "expired"})).await.data(200);
    app.idle().await;
    app.patch(&format!("/api/carts/{paid}"), &json!({"status": "abandoned"})).await.data(200);
    links(&paid).await;
    app.stripe.pay(&app.session(&paid).await).await.unwrap();
    assert_eq!(app.show(&paid).await["status"], "recovered");

    // An unpaid link.
    let mut spelled = person.cart();
    spelled["customerEmail"] = json!(person.other_spelling);
    let open = app.cart_of(&spelled).await;
    let recovery_path = links(&open).await;

    // A link that could not be made, whose job was cancelled.
    let asked = app.stripe.calls(Operation::Create);
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    let given_up = app.cart_of(&person.cart()).await;
    let job = app.ask_later(&given_up).await["jobId"].clone();
    let job = format!("/api/jobs/{}", job.as_str().unwrap());
    eventually("Stripe refused it", async || app.stripe.calls(Operation::Create) > asked).await;
    eventually("it waits", async || app.get(&job).await.data(200)["state"] == "retrying").await;
    app.send(app.request(Method::POST, &format!("{job}/cancel"))).await.data(200);

    // Imported from another shop.
    let two_days_ago = app.now() - TimeDelta::days(2);
    let lines = ["recovered", "expired"].map(|status| {
        let mut line = person.cart();
        line["externalId"] = json!(format!("{status} order of {}", person.name));
        line["abandonedAt"] = json!(two_days_ago);
        line["status"] = json!(status);
        line
    });
    let (imported, _) = import(app, NDJSON, ndjson(lines)).await;

    // The personal data in Stripe's events.
    let details = json!({"email": person.email, "name": person.name});
    for (kind, object) in [
        ("customer.updated", details.clone()),
        (
            "checkout.session.expired",
            json!({"id": "cs_of_nobody", "client_reference_id": open, "customer_details": details,
            "metadata": {"cart_id": open, "link_version": "99"}}),
        ),
    ] {
        let id = format!("evt_{kind}_{}", person.name.len());
        app.webhook(&event(&id, kind, &object)).await.data(200);
    }
    let mut carts: Vec<String> = imported.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    carts.extend([paid.clone(), open, given_up]);
    app.idle().await;
    Life { paid, recovery_path, carts, addresses }
}

/// Adds job errors that an earlier version might have stored.
///
/// # Panics
/// If Postgres refuses it.
pub async fn plant_old_errors(app: &App, life: &Life, person: &Person) {
    let why = format!("Stripe refused it: Invalid email address: {}", person.email);
    sqlx::query(
        "update jobs set last_error = $1, attempt_log = jsonb_build_array(jsonb_build_object('attempt', 1, 'error', $1))
         where state = 'dead' and payload->>'cartId' = any ($2)",
    )
    .bind(&why)
    .bind(&life.carts)
    .execute(&app.pool)
    .await
    .unwrap();
    sqlx::query("update payment_links set failure = $1 where status = 'pending' and cart_id = any ($2)")
        .bind(&why)
        .bind(&life.carts)
        .execute(&app.pool)
        .await
        .unwrap();
    // One job of an existing cart, and one of a cart deleted long ago.
    for cart in [life.carts[0].as_str(), "cart_of_before"] {
        sqlx::query(
            "insert into jobs (id, queue, kind, payload, state, attempts, max_attempts, last_error, finished_at)
             values (gen_random_uuid(), 'payment-links', 'close_payment_link', jsonb_build_object('cartId', $1, 'version', 1),
                     'dead', 1, 1, $2, now())",
        )
        .bind(cart)
        .bind(&why)
        .execute(&app.pool)
        .await
        .unwrap();
    }
}
