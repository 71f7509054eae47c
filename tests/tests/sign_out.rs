//! Signing out ends the session at every api, for copies of its cookie as well.

use std::time::Duration;

use tests::{processes::Process, within};

use crate::processes::{Shop, free_address};

/// How long another api may accept the session, as with a revoked key.
const WITHIN: Duration = Duration::from_secs(5);

struct Browser<'a> {
    http: &'a reqwest::Client,
    base: String,
    cookie: String,
}

impl Browser<'_> {
    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.base)).header("cookie", &self.cookie).send().await.unwrap()
    }

    async fn token(&self) -> String {
        let page = self.get("/queues").await.text().await.unwrap();
        let (_, token) = page.split_once(r#"name="token" value=""#).expect("a form");
        token.split('"').next().unwrap().to_owned()
    }

    /// The target of a redirect.
    async fn sign_out(&self, token: &str) -> (u16, String) {
        let request = self.http.post(format!("{}/sign-out", self.base)).header("cookie", &self.cookie);
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(format!("token={token}"));
        let answer = request.send().await.unwrap();
        let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location.unwrap_or_default())
    }
}

async fn sign_in(http: &reqwest::Client, base: &str) -> String {
    let request = http.post(format!("{base}/sign-in")).header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body("key=key").send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn signing_out_ends_the_session_at_every_api() {
    let shop = Shop::open().await;
    let mut apis = Vec::new();
    let mut bases = Vec::new();
    for _ in 0..2 {
        let address = free_address().await;
        let mut variables = shop.api_variables();
        variables.retain(|(name, _)| *name != "BIND_ADDR");
        variables.push(("BIND_ADDR", address.to_string()));
        let mut api = Process::start("api", variables).await;
        api.says("api is listening").await;
        apis.push(api);
        bases.push(format!("http://{address}"));
    }
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let (cookie, other_cookie) = (sign_in(&http, &bases[0]).await, sign_in(&http, &bases[1]).await);
    let browsers = |cookie: &str| {
        let browser = |base: &String| Browser { http: &http, base: base.clone(), cookie: cookie.to_owned() };
        bases.iter().map(browser).collect::<Vec<_>>()
    };
    let (here, others) = (browsers(&cookie), browsers(&other_cookie));
    let mut streams = Vec::new();
    for browser in &here {
        assert_eq!(browser.status("/").await, 200);
        let mut events = browser.get("/events").await;
        assert!(events.chunk().await.unwrap().is_some());
        streams.push(events);
    }

    // Neither another session's form nor a link signs the session out.
    let token = here[0].token().await;
    assert_eq!(here[0].status("/sign-out").await, 405);
    assert_eq!(others[0].sign_out(&token).await.0, 400, "the form is of another session");
    let forged = Browser { cookie: format!("{cookie}x"), http: &http, base: bases[0].clone() };
    assert_eq!(forged.sign_out(&token).await, (303, "/sign-in".to_owned()));
    assert_eq!((here[0].status("/").await, others[0].status("/").await), (200, 200));

    assert_eq!(here[0].sign_out(&token).await, (303, "/sign-in".to_owned()));
    assert_eq!(here[0].status("/").await, 303, "at once where it was seen");
    assert_eq!(here[0].status("/events").await, 401);
    within(WITHIN, "the other api knows", async || here[1].status("/").await == 303).await;
    for mut events in streams {
        let ended = tokio::time::timeout(WITHIN, async { while let Ok(Some(_)) = events.chunk().await {} }).await;
        assert!(ended.is_ok(), "an open page receives no more events");
    }
    // The same page in another tab.
    assert_eq!(here[0].sign_out(&token).await, (303, "/sign-in".to_owned()));
    assert_eq!(here[1].sign_out(&token).await, (303, "/sign-in".to_owned()));
    for browser in &others {
        assert_eq!(browser.status("/").await, 200, "another session of the same key goes on");
    }
    let kept: i64 =
        sqlx::query_scalar("select count(*) from ended_sessions").fetch_one(&shop.database.pool(1)).await.unwrap();
    assert_eq!(kept, 1);

    // An api that starts later refuses the session as well.
    let address = free_address().await;
    let mut variables = shop.api_variables();
    variables.retain(|(name, _)| *name != "BIND_ADDR");
    variables.push(("BIND_ADDR", address.to_string()));
    let mut late = Process::start("api", variables).await;
    late.says("api is listening").await;
    let late = Browser { cookie, http: &http, base: format!("http://{address}") };
    assert_eq!(late.status("/").await, 303);
}
