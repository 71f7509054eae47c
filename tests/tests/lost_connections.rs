//! Postgres disappears silently: connections accept data and never respond. No request may wait for
//! such a connection, or for its locks, without end.

use std::time::{Duration, Instant};

use common::{config::Env, db::is_unavailable};
use queue::{CatchUp, Listen, RateLimit, Schedule};
use sandbox::proxy::Proxy;
use serde_json::json;
use sqlx::Connection as _;
use tests::{
    Setup, TestDatabase, a_cart,
    probe::{Act, Probe},
    processes::Process,
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// The api's limits, 15 s for a statement and 3 s for a connection, plus slack for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15 + 3 + 30);

#[tokio::test]
async fn every_request_is_answered_despite_silently_lost_connections() {
    let app = Setup::default().behind_a_proxy().start().await;
    let id = app.post("/api/carts", &a_cart()).await.data(201)["id"].as_str().unwrap().to_owned();
    let cart = format!("/api/carts/{id}");
    let link = format!("{cart}/payment-link");
    let expired = json!({"status": "expired"});
    let ask = async || {
        tokio::join!(
            app.get("/api/analytics"),
            app.get("/api/queues"),
            app.get("/api/jobs"),
            app.get(&cart),
            app.get(&link),
            app.get("/api/carts/export"),
            app.patch(&cart, &expired),
            app.delete(&cart),
        )
    };
    let _ = app.get("/api/analytics").await; // opens connections and uses them just now
    let _ = app.get(&link).await;
    app.proxy.as_ref().unwrap().lose();
    let begun = Instant::now();
    let answers = ask().await;
    let took = begun.elapsed();
    assert!(took < ANSWERED_WITHIN, "{took:?}: {answers:?}");
    // New connections are made once the loss is detected.
    within(ANSWERED_WITHIN, "it is answered again", async || app.get("/api/analytics").await.status == 200).await;
}

#[tokio::test]
async fn rate_limits_and_schedules_recover_from_lost_connections() {
    let direct = TestDatabase::create().await;
    let proxy = Proxy::start(vec![direct.server_address()]).await.unwrap();
    let database = direct.by_way_of(proxy.address).reach(Listen::Directly, 3);
    let rate = RateLimit::start(database.clone(), "lost", 100);
    let every_second = Schedule { name: "lost", cron: "* * * * * *".parse().unwrap(), catch_up: CatchUp::Latest };
    let job = Probe { n: 0, act: Act::Succeed };
    rate.turn().await.unwrap();
    queue::propose(&database, &every_second, &job).await.unwrap();
    proxy.lose();
    let _ = tokio::join!(rate.turn(), queue::propose(&database, &every_second, &job));
    within(ANSWERED_WITHIN, "there are turns again", async || rate.turn().await.is_ok()).await;
    within(ANSWERED_WITHIN, "slots are proposed again", async || {
        queue::propose(&database, &every_second, &job).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn locks_of_a_silent_process_are_released_within_seconds() {
    let database = TestDatabase::create().await;
    let (silent, other) = (database.reach(Listen::Directly, 1), database.reach(Listen::Directly, 1));
    let lock = async |of: &queue::Database| {
        let mut tx = of.begin().await?;
        sqlx::query("select from cart_count_progress for update").execute(&mut tx).await?;
        Ok::<_, sqlx::Error>(tx)
    };
    for silent in [silent.planned_once(1, "set jit = off"), silent] {
        let begun = Instant::now();
        let held = lock(&silent).await.unwrap();
        lock(&other).await.unwrap().rollback().await.unwrap();
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(1) && took < ANSWERED_WITHIN, "{took:?}");
        let error = held.commit().await.unwrap_err();
        assert!(common::db::is_unavailable(&error), "{error}");
    }
}

/// Requests abandoned while their statements wait for a lock: clients hang up and retry.
#[tokio::test]
async fn abandoned_requests_take_no_connection_beyond_the_maximum() {
    const CONNECTIONS: u32 = 2;
    let test = TestDatabase::create().await;
    let (database, pool) = (test.reach(Listen::Directly, CONNECTIONS), test.pool(2));
    let mut holding = pool.begin().await.unwrap();
    sqlx::query("lock table carts in access exclusive mode").execute(&mut *holding).await.unwrap();
    let waiting = async || {
        let sql =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap()
    };
    let (begun, mut most) = (Instant::now(), 0);
    // Longer than the time after which a connection with a stuck statement is closed.
    while begun.elapsed() < Duration::from_secs(8) {
        let given_up = async {
            let mut connection = database.acquire().await?;
            sqlx::query("select from carts").execute(&mut connection).await
        };
        let _ = tokio::time::timeout(Duration::from_millis(50), given_up).await;
        most = waiting().await.max(most);
    }
    assert_eq!(most, i64::from(CONNECTIONS));
    within(ANSWERED_WITHIN, "Postgres has ended them, though the table is locked", async || waiting().await == 0).await;
    drop(holding);
    within(ANSWERED_WITHIN, "there are connections again", async || database.acquire().await.is_ok()).await;
}

/// Like a load balancer without a server.
#[tokio::test]
async fn a_proxy_that_hangs_up_counts_as_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection)
        }
    });
    let mut worker = Process::start(
        "worker",
        [
            ("DATABASE_URL", format!("postgres://nobody:nothing@{address}/none")),
            ("STRIPE_SECRET_KEY", "sk_test_1".to_owned()),
        ],
    )
    .await;
    worker.says("Postgres is unavailable; waiting").await;
    let env = Env::of([("DATABASE_URL", format!("postgres://nobody:nothing@{address}/none"))]);
    let database = common::db::from_env(&env, 1).unwrap().database;
    for _ in 0..20 {
        let error = database.acquire().await.unwrap_err();
        assert!(common::db::is_unavailable(&error), "{error:?}");
    }
}

/// Responds to a connection like Postgres before a session begins: with an error, then the end.
async fn connect_to_one_that_says(severity: &str, code: &str, message: &str) -> sqlx::Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fields = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0");
    let answering = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let length = connection.read_u32().await.unwrap();
        let mut startup = vec![0; length as usize - 4];
        connection.read_exact(&mut startup).await.unwrap();
        connection.write_u8(b'E').await.unwrap();
        connection.write_u32(u32::try_from(fields.len()).unwrap() + 4).await.unwrap();
        connection.write_all(fields.as_bytes()).await.unwrap();
    });
    let url = format!("postgres://somebody@127.0.0.1:{port}/somewhere?sslmode=disable");
    let error = sqlx::PgConnection::connect(&url).await.unwrap_err();
    answering.await.unwrap();
    error
}

/// With a full disk Postgres can't write a file that a new session needs, and reports an internal
/// error.
#[tokio::test]
async fn a_session_that_can_not_start_counts_as_unavailable() {
    let full = connect_to_one_that_says("FATAL", "XX000", "could not write init file").await;
    assert!(is_unavailable(&full), "{full}");
    let broken = connect_to_one_that_says("FATAL", "58030", "could not read file: Input/output error").await;
    assert!(is_unavailable(&broken), "{broken}");
    let wrong_password = connect_to_one_that_says("FATAL", "28P01", "password authentication failed").await;
    assert!(!is_unavailable(&wrong_password), "waiting does not mend it: {wrong_password}");
    let fault = connect_to_one_that_says("ERROR", "XX000", "cache lookup failed").await;
    assert!(!is_unavailable(&fault), "a fault of one statement: {fault}");
}

/// A caller dropped during BEGIN leaves no transaction in the pool: the next caller's writes are
/// visible to others.
#[tokio::test]
async fn an_abandoned_begin_leaves_no_transaction_behind() {
    let database = TestDatabase::create().await;
    let (pool, other) = (database.reach(Listen::Directly, 1), database.pool(1));
    sqlx::raw_sql("create table marks (n bigint)").execute(&other).await.unwrap();
    for n in 1..=300_i64 {
        let begin = tokio::time::timeout(Duration::from_micros(n.unsigned_abs() * 5), pool.begin());
        drop(begin.await);
        sqlx::query("insert into marks values ($1)").bind(n).execute(&mut pool.acquire().await.unwrap()).await.unwrap();
        let seen: i64 = sqlx::query_scalar("select count(*) from marks").fetch_one(&other).await.unwrap();
        assert_eq!(seen, n, "the last one is stored");
    }
}
