//! `worker doctor` reports faults.

use chrono::TimeDelta;
use common::{clock::Clock, config::Env};
use sandbox::stripe::{Fault, Operation};
use tests::{App, Setup};
use worker::{Check, CheckStatus, examine};

fn env(app: &App, key: &str) -> Env {
    Env::of([
        ("DATABASE_URL", app.database.url.clone()),
        ("STRIPE_SECRET_KEY", key.to_owned()),
        ("STRIPE_API_URL", app.stripe.url()),
    ])
}

pub(crate) async fn checks(app: &App, clock: &Clock) -> Vec<Check> {
    let env = env(app, "sk_test_1");
    examine(&env, &env.read().unwrap(), clock).await.unwrap()
}

fn problems(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| check.status == CheckStatus::Fail).map(|check| check.name).collect()
}

#[tokio::test]
async fn each_fault_is_reported_and_nothing_else() {
    let app = Setup::default().without_worker().start().await;
    let clock = Clock::system();
    assert_eq!(problems(&checks(&app, &clock).await), [""; 0], "nothing is wrong yet");

    // 1. A migration of this binary was never applied.
    app.sql("create table kept as select * from _sqlx_migrations where version = 20261129000003").await;
    app.sql("delete from _sqlx_migrations where version = 20261129000003").await;
    let found = checks(&app, &clock).await;
    assert_eq!(problems(&found), ["migrations"]);
    assert!(found.iter().any(|check| check.text.contains("cart counts")), "{found:?}");
    app.sql("insert into _sqlx_migrations select * from kept; drop table kept").await;

    // 2. This machine's clock is a minute fast.
    let fast = Clock::stopped_at(clock.now() + TimeDelta::minutes(1));
    assert_eq!(problems(&checks(&app, &fast).await), ["clock"]);

    // 3. There is no room for a worker's connections.
    app.sql(&format!("alter database {} connection limit 3", app.database.name)).await;
    assert_eq!(problems(&checks(&app, &clock).await), ["connections"]);
    app.sql(&format!("alter database {} connection limit -1", app.database.name)).await;

    // 4. A slot of a schedule was missed.
    app.sql(
        "insert into schedules (name, cron, catch_up, queue, looked_at) values
            ('expire_carts', '0 */5 * * * *', 'latest', 'expiry', now() - interval '1 hour');
         insert into schedule_slots (schedule, slot) values ('expire_carts', now() - interval '1 hour')",
    )
    .await;
    assert_eq!(problems(&checks(&app, &clock).await), ["schedules"]);
    app.sql("delete from schedules; delete from schedule_slots").await;

    // 5. A ready job is not taken; in a paused queue this is intended.
    let job = "insert into jobs (id, queue, kind, payload, max_attempts, run_at)
               values (gen_random_uuid(), 'expiry', 'expire_carts', '{}', 10, now() - interval '1 hour')";
    app.sql(job).await;
    assert_eq!(problems(&checks(&app, &clock).await), ["queues"]);
    app.sql("insert into queues (name, paused_at) values ('expiry', now())").await;
    assert_eq!(problems(&checks(&app, &clock).await), [""; 0]);

    // 6. A job died today; one that died last week is only a note.
    app.sql("update jobs set state = 'dead', finished_at = now()").await;
    assert_eq!(problems(&checks(&app, &clock).await), ["dead jobs"]);
    app.sql("update jobs set last_error = 'Stripe refused it: no'").await;
    assert_eq!(problems(&checks(&app, &clock).await), [""; 0], "that is ordinary business");
    app.sql("update jobs set last_error = null, finished_at = now() - interval '7 days'").await;
    assert_eq!(problems(&checks(&app, &clock).await), [""; 0]);

    // 7. Stripe does not know the key. (LISTEN lost behind a pooler: see pooler.rs.)
    app.stripe.fail_next(Operation::List, Fault::Unauthorized);
    let found = checks(&app, &clock).await;
    assert_eq!(problems(&found), ["stripe"]);
    assert!(found.iter().any(|check| check.text.contains("STRIPE_SECRET_KEY")));
}

/// The exit code is for programs, the lines are for people.
#[tokio::test]
async fn the_exit_code_reports_failed_checks() {
    let app = Setup::default().start().await;
    let run = async |database: &str| {
        let variables = [
            ("DATABASE_URL", database.to_owned()),
            ("STRIPE_SECRET_KEY", "sk_test_1".to_owned()),
            ("STRIPE_API_URL", app.stripe.url()),
        ];
        let output = tests::processes::run("worker", &["doctor"], variables).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&app.database.url).await;
    assert_eq!(code, Some(0), "{text}");
    // The number of free connections depends on concurrent tests.
    for name in
        ["database", "migrations", "privileges", "listen", "clock", "schedules", "queues", "dead jobs", "stripe"]
    {
        assert!(text.lines().any(|line| line.starts_with("ok") && line.contains(name)), "{name} is not well in {text}");
    }
    let (code, text) = run("postgres://postgres:wrong@127.0.0.1:9/none").await;
    assert_eq!(code, Some(1));
    assert!(text.lines().any(|line| line.starts_with("PROBLEM") && line.contains("DATABASE_URL")), "{text}");
}
