//! The load: concurrent clients with all kinds of requests. Each client changes only its own carts,
//! so that it knows their possible states.

mod bulk;
mod carts;
mod links;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::{
    book::{OwnCart, promises},
    members::{Kind, Member},
    stage::Scene,
};

/// The maximum time to a response, whatever happens to Postgres, Stripe or the workers.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// The client's timeout; after it, the outcome of the request is unknown.
const GIVE_UP: Duration = Duration::from_secs(35);
/// Grace period for requests that began before everything was repaired.
const AFTERMATH: Duration = Duration::from_secs(10);
/// The number of its newest carts that a client uses.
const IN_HAND: usize = 60;

#[derive(Debug)]
pub(crate) struct Client {
    scene: Arc<Scene>,
    number: usize,
    dice: StdRng,
    sequence: u64,
    /// The carts that it created, including deleted ones.
    pub(crate) carts: Vec<OwnCart>,
    /// Addresses of carts that may have been stored, because the request got no response.
    pub(crate) unanswered: Vec<String>,
    /// The number of carts stored by imports.
    pub(crate) imported: u64,
}

/// The outcome of a request.
enum Answer {
    /// A response that states the outcome.
    Said(StatusCode, Value),
    /// The outcome is unknown.
    Unknown,
}

impl Client {
    pub(crate) fn new(scene: Arc<Scene>, number: usize, seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        Self { scene, number, dice, sequence: 0, carts: Vec::new(), unanswered: Vec::new(), imported: 0 }
    }

    /// Sends requests until `stop` is set; returns the client with its records.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>, pause_ms: u64) -> Self {
        while !stop.load(Ordering::Acquire) {
            self.step().await;
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..=2 * pause_ms))).await;
        }
        self
    }

    async fn step(&mut self) {
        match self.dice.random_range(0..1_000) {
            0..170 => self.create().await,
            170..250 => self.create_once().await,
            250..400 => self.show().await,
            400..470 => self.change().await,
            470..500 => self.delete().await,
            500..680 => self.ask_for_link().await,
            680..760 => self.pay().await,
            760..785 => self.open_recovery_link().await,
            785..800 => self.send_foreign_event().await,
            800..820 => self.show_link().await,
            820..890 => self.list().await,
            890..920 => self.show_timeline().await,
            920..950 => self.look("GET analytics", "/api/analytics?period=7d").await,
            950..965 => self.look("GET jobs", "/api/jobs?limit=20").await,
            965..975 => self.look("GET queues", "/api/queues").await,
            975..982 => self.look("GET schedules", "/api/schedules").await,
            982..995 => self.import().await,
            _ => self.export().await,
        }
    }

    /// A unique name.
    fn next_name(&mut self) -> String {
        self.sequence += 1;
        format!("c{}-{}", self.number, self.sequence)
    }

    /// One of the cart indexes in use.
    fn pick(&mut self) -> Option<usize> {
        let from = self.carts.len().saturating_sub(IN_HAND);
        (from < self.carts.len()).then(|| self.dice.random_range(from..self.carts.len()))
    }

    fn api(&mut self) -> usize {
        let apis: Vec<usize> =
            self.scene.members.iter().filter(|member| member.kind == Kind::Api).map(|member| member.number).collect();
        apis[self.dice.random_range(0..apis.len())]
    }

    /// Sends a request to one of the apis, and checks the response against the general promises.
    async fn ask(
        &mut self,
        kind: &'static str,
        method: Method,
        path: &str,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let api = self.api();
        let member = &self.scene.members[api];
        let request = self.scene.http.request(method, format!("http://{}{path}", member.address)).timeout(GIVE_UP);
        let request = more(request.header("x-api-key", crate::API_KEY));
        let begun = Instant::now();
        let answer = async {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        };
        let answer = answer.await;
        self.judge_time(kind, member, begun, answer.is_ok());
        match answer {
            Ok((status, text)) => self.judge(kind, path, member, begun, status, &text),
            Err(error) => {
                self.scene.book.ended(kind, "no answer");
                self.judge_weather(kind, member, begun, &format!("no answer: {}", whole(&error)));
                Answer::Unknown
            }
        }
    }

    fn judge_time(&self, kind: &str, member: &Member, begun: Instant, answered: bool) {
        let took = begun.elapsed();
        if took > ANSWERED_WITHIN && self.scene.weather.was_there(member.number, begun) {
            let how = if answered { "took" } else { "had no answer after" };
            let what = format!("{kind} at {} {how} {:.1} s", member.name(), took.as_secs_f64());
            self.scene.book.violation(promises::ANSWERS, what);
        }
    }

    fn judge(
        &self,
        kind: &'static str,
        path: &str,
        member: &Member,
        begun: Instant,
        status: StatusCode,
        text: &str,
    ) -> Answer {
        let book = &self.scene.book;
        let documented = match status.as_u16() {
            200 | 201 | 202 | 303 => true,
            404 | 409 | 410 => true,
            502 => kind == "POST payment-link",
            503 => true,
            _ => false,
        };
        if !documented {
            let what = format!("{kind} {path} at {}: {status} {text}", member.name());
            book.violation(promises::DOCUMENTED, what);
        }
        let how = match status.as_u16() {
            200..400 => "done",
            502 => "502",
            503 => "503",
            400..500 => "refused",
            _ => "other",
        };
        book.ended(kind, how);
        if status.is_server_error() {
            // A shopper's page returns 503 while a checkout is being created, too.
            if status != StatusCode::BAD_GATEWAY && kind != "/pay" {
                self.judge_weather(kind, member, begun, &format!("{status} {text}"));
            }
            return if status == StatusCode::BAD_GATEWAY { Answer::Said(status, Value::Null) } else { Answer::Unknown };
        }
        Answer::Said(status, serde_json::from_str(text).unwrap_or(Value::Null))
    }

    /// Records an error as a violation unless a fault explains it.
    fn judge_weather(&self, kind: &str, member: &Member, begun: Instant, what: &str) {
        if begun.checked_sub(AFTERMATH).is_some_and(|since| self.scene.weather.was_fair(since)) {
            let what = format!("{kind} at {}: {what}", member.name());
            self.scene.book.violation(promises::FAIR_WEATHER, what);
        }
    }

    /// Sends a request of which only the response matters.
    async fn look(&mut self, kind: &'static str, path: &str) {
        let _ = self.ask(kind, Method::GET, path, |request| request).await;
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
