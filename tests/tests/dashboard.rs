//! The dashboard without a browser: sign-in, form tokens, and counts.

use common::jobs::ExpireCarts;
use reqwest::Method;
use serde_json::json;
use sqlx::Connection;
use tests::{Answer, App, Setup, connection, eventually};

/// A signed-in operator.
pub(crate) struct Operator<'a> {
    app: &'a App,
    cookie: String,
}

impl<'a> Operator<'a> {
    pub(crate) async fn sign_in(app: &'a App, key: &str) -> Self {
        let answer = sign_in(app, key).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{}", answer.text);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        Self { app, cookie }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.app.send(self.app.bare_request(Method::GET, path).header("cookie", &self.cookie)).await
    }

    /// Follows a redirect, with the cookies it sets.
    pub(crate) async fn next(&self, answer: &Answer) -> Answer {
        assert_eq!(answer.status, 303, "{}", answer.text);
        let path = answer.header("location").to_owned();
        let set = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        let cookies = if set.is_empty() { self.cookie.clone() } else { format!("{}; {set}", self.cookie) };
        self.app.send(self.app.bare_request(Method::GET, &path).header("cookie", cookies)).await
    }

    /// The session's cookie and another.
    pub(crate) fn cookies(&self, other: &str) -> String {
        format!("{}; {other}", self.cookie)
    }

    /// Sends a GET request with one more header, past the contract.
    pub(crate) async fn get_with(&self, path: &str, name: &str, value: &str) -> (u16, String) {
        let request = self.app.bare_request(Method::GET, path).header("cookie", &self.cookie).header(name, value);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The token in a page's forms.
    async fn token(&self) -> String {
        let page = self.get("/queues").await.text;
        let (_, token) = page.split_once(r#"name="token" value=""#).expect("a form");
        token.split('"').next().unwrap().to_owned()
    }

    fn form(&self, path: &str, fields: &str) -> reqwest::RequestBuilder {
        let request = self.app.bare_request(Method::POST, path).header("cookie", &self.cookie);
        request.header("content-type", "application/x-www-form-urlencoded").body(fields.to_owned())
    }

    pub(crate) async fn post(&self, path: &str, fields: &str) -> Answer {
        let token = self.token().await;
        self.app.send(self.form(path, &format!("token={token}&{fields}"))).await
    }
}

async fn sign_in(app: &App, key: &str) -> Answer {
    let request =
        app.bare_request(Method::POST, "/sign-in").header("content-type", "application/x-www-form-urlencoded");
    app.send(request.body(format!("key={key}"))).await
}

#[tokio::test]
async fn every_page_requires_a_key() {
    let app = Setup::default().without_worker().start().await;
    for path in ["/", "/start", "/carts", "/jobs", "/queues", "/schedules", "/audit", "/carts/cart_1", "/jobs/retry"] {
        let answer = app.send(app.bare_request(Method::GET, path)).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.header("location").starts_with("/sign-in"), "{path}");
    }
    app.send(app.bare_request(Method::GET, "/events")).await.is_error(401, "UNAUTHORIZED");
    assert_eq!(sign_in(&app, "no-key").await.status, 401);
    for key in ["old-key", "test-key"] {
        let page = Operator::sign_in(&app, key).await.get("/").await;
        assert_eq!(page.status, 200);
        let mut policy: Vec<&str> = page.header("content-security-policy").split("; ").collect();
        policy.sort_unstable();
        assert_eq!(
            policy,
            [
                "base-uri 'none'",
                "connect-src 'self'",
                "default-src 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
                "img-src 'self' data:",
                "script-src 'self'",
                "style-src 'self'",
            ]
        );
        assert!(page.text.len() < 100_000 && !page.text.contains(" style="), "{} bytes", page.text.len());
    }
    let mut forged = Operator::sign_in(&app, "test-key").await;
    forged.cookie.push('x');
    assert_eq!(forged.get("/").await.status, 303);
}

#[tokio::test]
async fn guessing_keys_is_throttled() {
    let app = Setup::default().without_worker().set("RATE_LIMIT_PER_MINUTE", "3").start().await;
    // The limit of three a minute allows one more every 20 s, so this must finish within 20 s.
    for _ in 0..3 {
        assert_eq!(sign_in(&app, "no-key").await.status, 401);
    }
    let refused = sign_in(&app, "test-key").await;
    assert_eq!((refused.status, refused.header("retry-after").is_empty()), (429, false));
    assert!(refused.text.contains(">Too many requests</h1>"), "{}", refused.text);
    assert_eq!(refused.text.matches("Too many requests").count(), 2, "the title and the heading: {}", refused.text);
    assert!(refused.text.contains("Back to sign-in") && !refused.text.contains("overview"), "{}", refused.text);
}

#[tokio::test]
async fn the_cookie_is_secure_over_https() {
    let app = Setup::default().without_worker().start().await;
    let plain = sign_in(&app, "test-key").await;
    let cookie = plain.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("Secure"),
        "{cookie}"
    );
    let request = app.bare_request(Method::POST, "/sign-in").header("x-forwarded-proto", "https");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body("key=test-key");
    assert!(app.send(request).await.header("set-cookie").contains("Secure"));
}

#[tokio::test]
async fn forms_of_others_are_refused() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let token = operator.token().await;
    let path = "/queues/expiry/pause";
    let paused = async || app.get("/api/queues").await.data(200)["queues"][1]["paused"] == true;
    let others = Operator::sign_in(&app, "test-key").await.token().await;
    for (what, request) in [
        ("no token", operator.form(path, "")),
        ("another session's", operator.form(path, &format!("token={others}"))),
        ("another site", operator.form(path, &format!("token={token}")).header("sec-fetch-site", "cross-site")),
        ("a neighbour", operator.form(path, &format!("token={token}")).header("sec-fetch-site", "same-site")),
        ("another origin", operator.form(path, &format!("token={token}")).header("origin", "https://evil.example")),
    ] {
        assert_eq!(app.send(request).await.status, 400, "{what}");
        assert!(!paused().await, "{what}");
    }
    let ours = operator.form(path, &format!("token={token}")).header("origin", app.url(""));
    assert_eq!(app.send(ours).await.header("location"), "/queues");
    assert!(paused().await);
}

#[tokio::test]
async fn all_filtered_jobs_are_cancelled_after_a_count() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    for _ in 0..3 {
        queue::enqueue(&mut connection(&app.pool).await, &ExpireCarts::default()).await.unwrap();
    }
    let helper = ExpireCarts::default().next_helper().unwrap();
    let options = queue::EnqueueOptions { delay: std::time::Duration::from_secs(600), ..Default::default() };
    queue::enqueue_with(&mut connection(&app.pool).await, &helper, options).await.unwrap();
    let dead = async || app.get("/api/jobs?state=dead").await.data(200)["pagination"]["total"].clone();
    let asked = operator.get("/jobs/cancel?queue=expiry&state=ready").await.text;
    assert!(asked.contains("Cancel 3 jobs"), "{asked}");
    assert_eq!(dead().await, 0, "that was a count");
    let answer = operator.post("/jobs/cancel", "queue=expiry&state=ready").await;
    assert_eq!(answer.header("location"), "/jobs?queue=expiry&state=dead");
    assert!(operator.next(&answer).await.text.contains("3 jobs cancelled."));
    assert_eq!(dead().await, 3);
    let asked = operator.get("/jobs/retry?queue=expiry").await.text;
    assert!(asked.contains("Retry 3 jobs") && asked.contains("Those that match when you confirm"), "{asked}");
    for wrong in ["/jobs/retry?state=done", "/jobs/discard?state=ready", "/jobs/cancel?state=dead"] {
        assert_eq!(operator.get(wrong).await.status, 400, "{wrong}");
    }
    assert!(operator.get("/jobs?page=99").await.text.contains("No such page."));
    let answer = operator.post("/jobs/retry", "queue=expiry").await;
    assert!(operator.next(&answer).await.text.contains("3 jobs queued again."));
    assert_eq!(dead().await, 0);
    operator.post("/jobs/cancel", "").await;
    assert_eq!(dead().await, 4, "no filter: all that are unfinished");
}

#[tokio::test]
async fn jobs_and_carts_link_each_other() {
    let app = App::new().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    app.idle().await;
    let job = app.get(&format!("/api/jobs?cartId={id}")).await.data(200)["jobs"][0]["id"].as_str().unwrap().to_owned();
    let (to_cart, to_job) = (format!("href=\"/carts/{id}\""), format!("href=\"/jobs/{job}\""));
    let page = operator.get(&format!("/jobs/{job}")).await.text;
    assert!(page.contains(&to_cart) && page.contains("version"), "{page}");
    let list = operator.get(&format!("/jobs?cartId={id}")).await.text;
    assert!(list.contains(&to_cart) && list.contains(&to_job) && list.contains("version 1"), "{list}");
    assert!(operator.get("/jobs").await.text.contains(&to_cart));
    let cart = operator.get(&format!("/carts/{id}")).await.text;
    assert!(cart.contains(&to_job) && cart.contains(&format!("/jobs?cartId={id}")), "{cart}");
}

#[tokio::test]
async fn selected_and_filtered_jobs_are_dismissed_after_a_count() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(queue::enqueue(&mut connection(&app.pool).await, &ExpireCarts::default()).await.unwrap().unwrap());
    }
    let state = async |id: &queue::JobId| app.get(&format!("/api/jobs/{id}")).await.body["data"]["state"].clone();
    // Of three, one is not dead.
    operator.post("/jobs/selected", &format!("action=cancel&id={}&id={}", ids[0], ids[1])).await;
    let chosen = format!("id={}&id={}&id={}", ids[0], ids[1], ids[2]);
    let asked = operator.get(&format!("/jobs/selected?action=discard&queue=expiry&{chosen}")).await.text;
    assert!(asked.contains("Dismiss 2 jobs") && asked.contains("1 job not included"), "{asked}");
    assert!(asked.contains("/jobs?queue=expiry"), "it leads back to the filtered list: {asked}");
    assert_eq!(state(&ids[0]).await, "dead", "that was a count");
    let done = operator.post("/jobs/selected", &format!("action=discard&queue=expiry&{chosen}")).await;
    assert_eq!(done.header("location"), "/jobs?queue=expiry");
    assert!(operator.next(&done).await.text.contains("2 jobs dismissed. 1 job unchanged (The job is"));
    assert_eq!((state(&ids[0]).await, state(&ids[2]).await), (json!(null), json!("ready")));

    operator.post(&format!("/jobs/{}/cancel", ids[2]), "").await;
    let one = operator.post(&format!("/jobs/{}/discard", ids[2]), "").await;
    assert_eq!((one.header("location"), state(&ids[2]).await), ("/jobs", json!(null)));
    assert!(operator.next(&one).await.text.contains("Job dismissed."));
    operator.post("/jobs/cancel", "kind=expire_carts").await;
    let filter = "queue=expiry&kind=expire_carts&error=operator";
    assert!(operator.get(&format!("/jobs/discard?{filter}")).await.text.contains("Dismiss 2 jobs"));
    operator.post("/jobs/discard", filter).await;
    assert_eq!(app.get("/api/jobs").await.data(200)["pagination"]["total"], 0);
    for bad in ["action=sing", "action=retry&id=x"] {
        assert_eq!(operator.get(&format!("/jobs/selected?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn job_tabs_have_counts_of_the_filter() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    for _ in 0..3 {
        queue::enqueue(&mut connection(&app.pool).await, &ExpireCarts::default()).await.unwrap();
    }
    app.ask_later(&app.cart().await).await;
    let tab = |page: &str, name: &str| {
        let (_, rest) = page.split_once(&format!(">{name} <span class=\"count\">")).expect("a tab");
        rest.split('<').next().unwrap().to_owned()
    };
    let page = operator.get("/jobs").await.text;
    assert_eq!((tab(&page, "All"), tab(&page, "Ready"), tab(&page, "Dead")), ("4".into(), "4".into(), "0".into()));
    let page = operator.get("/jobs?kind=expire_carts&state=dead").await.text;
    assert_eq!((tab(&page, "All"), tab(&page, "Ready"), tab(&page, "Dead")), ("3".into(), "3".into(), "0".into()));
    assert!(page.contains("0 jobs"), "{page}");
}

#[tokio::test]
async fn a_schedule_is_run_by_hand() {
    let app = Setup::default().set("EXPIRY_SCHEDULE", "0 0 0 1 1 *").start().await; // not while the test runs
    app.first_runs_have_ended().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let page = operator.get("/schedules").await.text;
    assert!(page.contains("Run now") && page.contains("Last run's job"), "{page}");
    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    let ran = operator.post("/schedules/expire_carts/run", "").await;
    let job = operator.next(&ran).await.text;
    assert!(ran.header("location").starts_with("/jobs/"), "{}", ran.header("location"));
    assert!(
        job.contains("Expire carts") && job.contains("Job queued. It waits, because its queue is paused."),
        "{job}"
    );
    let refused = operator.post("/schedules/expire_carts/run", "").await;
    assert_eq!(refused.header("location"), "/schedules");
    assert!(operator.next(&refused).await.text.contains("A run is queued, but its queue is paused"));
    assert_eq!(operator.post("/schedules/nothing/run", "").await.status, 404);
}

#[tokio::test]
async fn refused_webhooks_are_counted_for_all_processes() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    assert!(operator.get("/").await.text.contains("No worker is running"));
    assert!(!operator.get("/").await.text.contains("failed verification"));
    for _ in 0..3 {
        app.signed_webhook("{}", "t=1,v1=00").await.is_error(400, "BAD_REQUEST");
    }
    eventually("they are counted", async || operator.get("/").await.text.contains("3 webhooks failed verification"))
        .await;
}

#[tokio::test]
async fn running_workers_are_listed() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    assert!(operator.get("/queues").await.text.contains("No workers running"));
    let worker = app.start_worker();
    eventually("it is seen", async || operator.get("/queues").await.text.contains("0 of 16")).await;
    worker.stop().await;
    eventually("it is gone", async || operator.get("/queues").await.text.contains("No workers running")).await;
}

#[tokio::test]
async fn open_pages_receive_change_events() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let request = app.bare_request(Method::GET, "/events").header("cookie", &operator.cookie);
    let mut events = request.send().await.unwrap();
    // Changes between the rendering of the page and the first poll are reported too.
    says(&mut events, &["event: hello", "data: carts", "data: jobs"]).await;
    app.cart().await;
    says(&mut events, &["data: carts"]).await;
    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    says(&mut events, &["data: jobs"]).await;
}

async fn says(events: &mut reqwest::Response, wanted: &[&str]) {
    let mut received = String::new();
    let heard = async {
        while !wanted.iter().all(|wanted| received.contains(wanted)) {
            received += std::str::from_utf8(&events.chunk().await.unwrap().expect("it goes on")).unwrap();
        }
    };
    if tokio::time::timeout(tests::DEADLINE, heard).await.is_err() {
        panic!("nobody said {wanted:?}, but {received:?}");
    }
}

#[tokio::test]
async fn an_old_snapshot_is_named_on_the_overview() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let options = app.database.options().application_name("a forgotten backup");
    let mut backup = sqlx::PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select 1").execute(&mut backup).await.unwrap();
    assert!(!operator.get("/").await.text.contains("a forgotten backup"), "it is new");
    // The product's role can't see since when it is open, but a run that is younger.
    app.sql(
        "insert into schedule_slots (schedule, slot, admitted_at)
         select 'add_up_counts', at, at from (select now() - interval '12 minutes' as at) run",
    )
    .await;
    eventually("it is the oldest, and named", async || {
        let page = operator.get("/").await.text;
        page.contains("(a forgotten backup, role ")
            && page.contains("for at least 12 min")
            && page.contains("can&apos;t remove dead rows") | page.contains("can't remove dead rows")
    })
    .await;
    backup.close().await.unwrap();
    eventually("it has ended", async || !operator.get("/").await.text.contains("a forgotten backup")).await;
}
