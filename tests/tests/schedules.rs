//! Schedules: every occurrence runs once, despite kills, and missed runs are caught up.

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use common::clock::Clock;
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::PgPool;
use tests::{App, DEADLINE, Setup, TestDatabase, eventually, free_address, processes::Process, within};

async fn a_worker(database: &TestDatabase) -> Process {
    let mut worker = Process::start(
        "worker",
        [
            ("DATABASE_URL", database.url.clone()),
            ("STRIPE_SECRET_KEY", "sk_test_schedules".to_owned()),
            ("EXPIRY_SCHEDULE", "* * * * * *".to_owned()),
            ("ROLLUP_SCHEDULE", "* * * * * *".to_owned()),
        ],
    )
    .await;
    worker.says("worker is working").await;
    worker
}

async fn slots(pool: &PgPool, schedule: &str) -> Vec<DateTime<Utc>> {
    sqlx::query_scalar("select slot from schedule_slots where schedule = $1 order by slot")
        .bind(schedule)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Three workers with schedules of every second, for a minute; every few seconds one is killed and
/// another started.
#[tokio::test]
async fn every_occurrence_runs_once_despite_kills() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let mut workers = vec![a_worker(&database).await, a_worker(&database).await, a_worker(&database).await];
    let wanted = async |count: usize| {
        within(DEADLINE, "the next slots of both schedules are let in", async || {
            slots(&pool, "expire_carts").await.len() >= count && slots(&pool, "roll_up_days").await.len() >= count
        })
        .await;
    };
    for round in 1..=12 {
        wanted(round * 5).await;
        workers.remove(0).signal(Signal::SIGKILL);
        workers.push(a_worker(&database).await);
    }
    for schedule in ["expire_carts", "roll_up_days"] {
        let slots = slots(&pool, schedule).await;
        assert!(slots.len() >= 60);
        let gaps: Vec<_> = slots.windows(2).filter(|pair| pair[1] - pair[0] != TimeDelta::seconds(1)).collect();
        assert!(gaps.is_empty(), "{schedule} skipped after {gaps:?}");
    }
    // Jobs of a killed worker run again when their lease has run out.
    let left =
        "select count(*) from schedule_slots left join jobs on jobs.slot = schedule_slots.slot and jobs.id = job_id
                where slot_is_old and jobs.state is distinct from 'done'"
            .replace(
                "slot_is_old",
                "schedule_slots.slot < now() - interval '3 seconds' and schedule <> 'delete_old_records'",
            );
    within(3 * DEADLINE, "every slot's job is done", async || {
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(left.clone())).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    let twice: i64 = sqlx::query_scalar(
        "select count(*) from (select kind, slot from jobs where kind = 'expire_carts' group by kind, slot having count(*) > 1) twice",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(twice, 0);
}

/// Moves the runs and the last check back, as if no worker had run since then.
async fn stopped_since(pool: &PgPool, since: &str) {
    sqlx::query("delete from schedule_slots").execute(pool).await.unwrap();
    let slots = format!(
        "insert into schedule_slots (schedule, slot) select name, date_trunc('day', now()) - interval '{since}' from schedules"
    );
    sqlx::query(sqlx::AssertSqlSafe(slots)).execute(pool).await.unwrap();
    let looked =
        format!("update schedules set looked_at = date_trunc('day', now()) - interval '{since}' + interval '1 minute'");
    sqlx::query(sqlx::AssertSqlSafe(looked)).execute(pool).await.unwrap();
}

async fn ran(pool: &PgPool, schedule: &str, since: DateTime<Utc>) -> i64 {
    sqlx::query_scalar(
        "select count(*) from schedule_slots join jobs on jobs.id = job_id
         where schedule = $1 and jobs.state = 'done' and jobs.created_at >= $2",
    )
    .bind(schedule)
    .bind(since)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Once a day, half a day from now: no run is due during a test.
fn not_now() -> String {
    format!("0 0 {} * * *", (Clock::system().now().hour() + 12) % 24)
}

/// No worker ran for three days: each missed rollup runs, the missed expiries once.
#[tokio::test]
async fn missed_runs_are_caught_up_after_an_outage() {
    let app = Setup::default()
        .set("ROLLUP_SCHEDULE", "0 0 0 * * *")
        .set("EXPIRY_SCHEDULE", &not_now())
        .without_worker()
        .start()
        .await;
    let worker = app.start_worker();
    app.first_runs_have_ended().await;
    worker.stop().await;
    stopped_since(&app.pool, "3 days").await;
    assert!(overdue(&app).await.iter().all(|overdue| *overdue), "everything is overdue by now");

    let since: DateTime<Utc> = sqlx::query_scalar("select now()").fetch_one(&app.pool).await.unwrap();
    let worker = app.start_worker();
    // Two or three midnights, one of them today's.
    eventually("the rollups of all days ran", async || ran(&app.pool, "roll_up_days", since).await >= 3).await;
    eventually("one expiry ran", async || ran(&app.pool, "expire_carts", since).await == 1).await;
    app.idle().await;
    assert_eq!(ran(&app.pool, "expire_carts", since).await, 1);
    eventually("nothing is overdue", async || overdue(&app).await.iter().all(|overdue| !overdue)).await;
    worker.stop().await;
}

async fn overdue(app: &App) -> Vec<bool> {
    let data = app.get("/api/schedules").await.data(200);
    data["schedules"].as_array().unwrap().iter().map(|schedule| schedule["overdue"].as_bool().unwrap()).collect()
}

#[tokio::test]
async fn schedules_are_shown_with_their_slots() {
    let cron = not_now();
    let app = Setup::default().set("EXPIRY_SCHEDULE", &cron).start().await;
    let data = app.get("/api/schedules").await.data(200);
    let expiry = data["schedules"].as_array().unwrap().iter().find(|one| one["name"] == "expire_carts").unwrap();
    assert_eq!((&expiry["cron"], &expiry["catchUp"]), (&json!(cron), &json!("latest")));
    assert_eq!((&expiry["queue"], &expiry["overdue"]), (&json!("expiry"), &json!(false)));
    let instant = |name: &str| expiry[name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(instant("nextSlot") - instant("lastSlot"), TimeDelta::days(1));
    assert!(instant("lastSlot") <= now(&app).await && now(&app).await < instant("nextSlot"));
}

/// A worker that does not serve the overdue queue of expiries reports it in its readiness, unless
/// configured otherwise.
#[tokio::test]
async fn readiness_reports_overdue_schedules() {
    let app = Setup::default().without_worker().start().await;
    let address = free_address();
    let variables = [
        ("DATABASE_URL", app.database.url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_schedules".to_owned()),
        ("WORKER_QUEUES", "analytics".to_owned()),
        ("HEALTH_ADDR", address.to_string()),
    ];
    let mut worker = Process::start("worker", variables).await;
    worker.says("worker is working").await;
    eventually("an expiry waits", async || !slots(&app.pool, "expire_carts").await.is_empty()).await;
    let ready = async || {
        let answer = reqwest::get(format!("http://{address}/readyz")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ready().await.0, 200, "it waits for a moment only");
    let aged = "update jobs set created_at = now() - interval '10 minutes' where kind = 'expire_carts'";
    sqlx::query(aged).execute(&app.pool).await.unwrap();
    let (status, text) = ready().await;
    assert!(status == 503 && text.starts_with("overdue: expire_carts of "), "{status} {text}");
    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    assert_eq!(ready().await.0, 200, "somebody wants it to wait");
}

/// A queue without workers does not collect a job per occurrence: one waiting job stands for all.
#[tokio::test]
async fn a_paused_queue_keeps_one_expiry_waiting() {
    let app = Setup::default().set("EXPIRY_SCHEDULE", "* * * * * *").without_worker().start().await;
    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    let worker = app.start_worker();
    let waiting = async || -> i64 {
        sqlx::query_scalar("select count(*) from jobs where kind = 'expire_carts' and state = 'pending'")
            .fetch_one(&app.pool)
            .await
            .unwrap()
    };
    eventually("one waits", async || waiting().await > 0).await;
    // The job has waited for some minutes.
    sqlx::query(
        "delete from jobs where id not in (select id from jobs where kind = 'expire_carts' order by id limit 1)",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    sqlx::query("update jobs set run_at = now() - interval '5 minutes' where kind = 'expire_carts'")
        .execute(&app.pool)
        .await
        .unwrap();
    let before = slots(&app.pool, "expire_carts").await.len();
    eventually("more slots are let in", async || slots(&app.pool, "expire_carts").await.len() >= before + 4).await;
    assert!(waiting().await <= 2, "at most one that was on its way, and the one that waits");
    worker.stop().await;
}

#[tokio::test]
async fn a_schedule_runs_by_hand_once_at_a_time_and_keeps_its_times() {
    let app = Setup::default()
        .set("EXPIRY_SCHEDULE", &not_now())
        .set("ROLLUP_SCHEDULE", "0 0 0 * * *")
        .without_worker()
        .start()
        .await;
    app.post("/api/schedules/expire_carts/run", &json!(null)).await.is_error(404, "NOT_FOUND");
    let worker = app.start_worker();
    app.first_runs_have_ended().await;
    let schedule = async |name: &str| {
        let data = app.get("/api/schedules").await.data(200);
        data["schedules"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    };
    let before = schedule("expire_carts").await;
    let first = before["lastJobId"].as_str().expect("its first run has a job").to_owned();

    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    let run = async || app.post("/api/schedules/expire_carts/run", &json!(null)).await;
    let (one, other) = tokio::join!(run(), run());
    let (job, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    let job = job.data(200);
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!((&job["kind"], &job["state"], &job["slot"]), (&json!("expire_carts"), &json!("ready"), &json!(null)));
    let message = refused.is_error(409, "CONFLICT")["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&id), "{message}");
    let after = schedule("expire_carts").await;
    assert_eq!(after["lastJobId"], json!(id));
    for field in ["lastSlot", "nextSlot", "overdue"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    app.post("/api/queues/expiry/resume", &json!(null)).await.data(200);
    eventually("it has run", async || app.get(&format!("/api/jobs/{id}")).await.data(200)["state"] == "done").await;
    // A regular run in progress counts as well.
    sqlx::query("update jobs set state = 'running', lease_token = $1::uuid, lease_until = now() + interval '1 hour', finished_at = null where id = $1::uuid")
        .bind(&first)
        .execute(&app.pool)
        .await
        .unwrap();
    run().await.is_error(409, "CONFLICT");
    worker.stop().await;

    // After an outage every missed rollup runs, whatever ran by hand meanwhile.
    stopped_since(&app.pool, "3 days").await;
    sqlx::query("update schedules set looked_at = now() - interval '2 days 1 hour' where name = 'roll_up_days'")
        .execute(&app.pool)
        .await
        .unwrap();
    let since = now(&app).await;
    let by_hand = app.post("/api/schedules/roll_up_days/run", &json!(null)).await.data(200);
    let worker = app.start_worker();
    eventually("the rollups of all days ran", async || ran(&app.pool, "roll_up_days", since).await >= 3).await;
    eventually("so did that by hand", async || {
        let path = format!("/api/jobs/{}", by_hand["id"].as_str().unwrap());
        app.get(&path).await.data(200)["state"] == "done"
    })
    .await;
    worker.stop().await;
}

async fn now(app: &App) -> DateTime<Utc> {
    sqlx::query_scalar("select now()").fetch_one(&app.pool).await.unwrap()
}
