//! Payment links whose requests, attempts and sessions are stored together.

use chrono::TimeDelta;
use common::payment_links::{
    self, Answer, LinkRequest, Opening, Refusal, RequestedBy, SessionSettings,
    checkout::{self, NewAttempt},
};
use futures_util::future::join_all;
use sandbox::stripe::Operation;
use tests::{App, Setup, connection};

use crate::early_events::without_worker;

fn request(cart: &str) -> LinkRequest {
    LinkRequest::new(cart.parse().expect("an id of a cart"), RequestedBy::Shopper, None)
}

/// A request by the shop, which makes the recovery link.
fn by_shop(app: &App, cart: &str) -> LinkRequest {
    let recovery_end = Some(app.now() + TimeDelta::days(7));
    LinkRequest::new(cart.parse().expect("an id of a cart"), RequestedBy::Api, recovery_end)
}

/// `cart:version` of a link, or why there is none.
fn text(answer: &Answer) -> String {
    match answer {
        Answer::Link(link, recovery) => {
            format!(
                "{}:{}{}",
                link.cart_id,
                link.version,
                if recovery.is_some() { "" } else { " without a recovery link" }
            )
        }
        Answer::Refused(why) => why.to_string(),
        Answer::Missing => "missing".to_owned(),
        Answer::Held => "held".to_owned(),
    }
}

#[tokio::test]
async fn each_request_of_a_batch_gets_its_own_answer() {
    let app = without_worker().await;
    let [new, known, held, old, processing, closed] =
        join_all((0..6).map(|_| app.cart())).await.try_into().expect("six carts");
    app.ask(&known).await.data(202);
    app.ask(&processing).await.data(202);
    for (cart, sql) in [
        (
            &old,
            "update carts set status = 'expired', status_reason = 'age', status_changed_at = now(), expired_at = now() where id = $1",
        ),
        (&processing, "update payment_links set status = 'processing' where cart_id = $1"),
    ] {
        sqlx::query(sql).bind(cart).execute(&app.pool).await.expect(sql);
    }
    let mut holder = app.pool.begin().await.expect("a transaction");
    sqlx::query("select from carts where id = $1 for update").bind(&held).execute(&mut *holder).await.expect("a lock");

    let requests = [
        by_shop(&app, &held),
        by_shop(&app, &new),
        by_shop(&app, "cart_none"),
        by_shop(&app, &old),
        by_shop(&app, &known),
        by_shop(&app, &processing),
        request(&closed),
    ];
    let mut conn = connection(&app.pool).await;
    let answers = payment_links::request(&mut conn, &requests, &app.clock).await.expect("answers");
    let answers: Vec<String> = answers.iter().map(text).collect();
    assert_eq!(
        answers,
        [
            "held".to_owned(),
            format!("{new}:1"),
            "missing".to_owned(),
            "The cart is expired, not abandoned".to_owned(),
            format!("{known}:1"),
            Refusal::PaymentInProgress.to_string(),
            Refusal::RecoveryLinkExpired.to_string(),
        ]
    );
    let stored: i64 =
        sqlx::query_scalar("select count(*) from payment_links").fetch_one(&app.pool).await.expect("a count");
    assert_eq!(stored, 3, "of the new cart, the known one, and the one whose payment is in progress");
}

#[tokio::test]
async fn attempts_begin_together_and_sessions_are_stored_together() {
    let app = without_worker().await;
    let carts = join_all((0..3).map(|_| app.cart())).await;
    for cart in &carts {
        app.ask(cart).await.data(202);
    }
    sqlx::query("delete from carts where id = $1").bind(&carts[2]).execute(&app.pool).await.expect("a deletion");
    let settings = SessionSettings {
        checkout: common::config::Env::default().read().expect("the defaults"),
        public_url: app.url(""),
        without_email: false,
    };
    let attempt = |cart: &str, version| NewAttempt { cart_id: cart.to_owned(), version, older_are_closed: false };
    let attempts = [
        attempt(&carts[2], 1),
        attempt(&carts[1], 1),
        attempt("cart_none", 1),
        attempt(&carts[0], 1),
        attempt(&carts[0], 2),
    ];
    let mut conn = connection(&app.pool).await;
    let begun = checkout::begin(&mut conn, &attempts, &settings, Some(false), &app.clock).await.expect("attempts");
    let begun: Vec<Option<(&str, bool)>> = begun
        .iter()
        .map(|checkout| checkout.as_ref().map(|checkout| (checkout.link.cart_id.as_str(), checkout.attempt.is_some())))
        .collect();
    let of = |cart: usize, has_begun| Some((carts[cart].as_str(), has_begun));
    assert_eq!(begun, [of(2, false), of(1, true), None, of(0, true), None], "the cart of the first is deleted");

    let opening = |cart: &str, session: &str| Opening {
        cart_id: cart.to_owned(),
        version: 1,
        session_id: session.to_owned(),
        url: format!("https://checkout.stripe.com/{session}"),
        session_expires_at: app.now(),
        livemode: Some(false),
    };
    // One session for two links breaks the invariant that a session belongs to one request.
    let both = [opening(&carts[0], "cs_0"), opening(&carts[1], "cs_0")];
    payment_links::open(&mut conn, &both, app.now()).await.expect_err("a session of two links");
    let openings = [opening("cart_none", "cs_2"), opening(&carts[1], "cs_1"), opening(&carts[0], "cs_0")];
    assert_eq!(payment_links::open(&mut conn, &openings, app.now()).await.expect("openings"), [false, true, true]);
    let again = [opening(&carts[0], "cs_0"), opening(&carts[1], "cs_0")];
    assert_eq!(payment_links::open(&mut conn, &again, app.now()).await.expect("openings"), [false, false]);
    let stored: Vec<(String, String)> =
        sqlx::query_as("select cart_id, session_id from payment_links where status = 'open' order by session_id")
            .fetch_all(&app.pool)
            .await
            .expect("the links");
    assert_eq!(stored, [(carts[0].clone(), "cs_0".to_owned()), (carts[1].clone(), "cs_1".to_owned())]);
}

/// Many carts at once, each requested twice: one session each, and every answer is of its own cart.
#[tokio::test]
async fn links_of_many_carts_at_once_are_not_mixed_up() {
    let app = Setup::default().start().await;
    let carts = join_all((0..40).map(|_| app.cart())).await;
    let answers = join_all(carts.iter().chain(&carts).map(async |cart| {
        let link = app.ask(cart).await.data(200)["paymentLink"].as_str().expect("a link").to_owned();
        (cart.clone(), link)
    }))
    .await;
    for (cart, link) in answers {
        let stored: String = sqlx::query_scalar("select url from payment_links where cart_id = $1 and status = 'open'")
            .bind(&cart)
            .fetch_one(&app.pool)
            .await
            .expect("one open link");
        assert_eq!(link, stored);
    }
    assert_eq!(app.stripe.calls(Operation::Create), 40);
}
