//! Imports as streams: large bodies, slow clients, and interruptions.

use std::collections::VecDeque;

use axum::body::Bytes;
use futures_util::stream;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::{
    App, Setup, UNKNOWN_FIELD, a_cart, a_line, eventually,
    imports::{NDJSON, import, ndjson, send},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::cart_import::count;

/// An import whose body is sent piece by piece while its results are read.
struct Upload {
    body: mpsc::Sender<std::io::Result<String>>,
    answer: Answering,
    answers: VecDeque<Value>,
    /// The beginning of the next result.
    text: String,
}

enum Answering {
    Awaited(JoinHandle<Response>),
    Begun(Response),
}

impl Upload {
    fn begin(request: reqwest::RequestBuilder) -> Self {
        let (body, pieces) = mpsc::channel(1);
        let pieces = stream::unfold(pieces, async |mut pieces: mpsc::Receiver<_>| Some((pieces.recv().await?, pieces)));
        let request = request.header("content-type", NDJSON).body(reqwest::Body::wrap_stream(pieces));
        let answer = tokio::spawn(async { request.send().await.unwrap() });
        Self { body, answer: Answering::Awaited(answer), answers: VecDeque::new(), text: String::new() }
    }

    fn to(app: &App) -> Self {
        Self::begin(app.request(Method::POST, "/api/carts/import"))
    }

    async fn send(&self, text: impl Into<String>) {
        self.body.send(Ok(text.into())).await.unwrap();
    }

    /// The next result; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some(answer);
            }
            if let Answering::Awaited(answer) = &mut self.answer {
                self.answer = Answering::Begun(answer.await.unwrap());
            }
            let Answering::Begun(response) = &mut self.answer else { return None };
            let piece: Bytes = response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
            if let Some((lines, rest)) = self.text.rsplit_once('\n') {
                self.answers.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
                self.text = rest.to_owned();
            }
        }
    }

    /// Ends the body; the summary comes next, and last.
    async fn answer_summary(mut self) -> Value {
        let (closed, _) = mpsc::channel(1);
        self.body = closed;
        let summary = self.next().await.unwrap()["summary"].take();
        assert_eq!(self.next().await, None);
        summary
    }
}

#[tokio::test]
async fn bodies_have_no_size_limit_and_lines_have_one() {
    let app = Setup::default().without_worker().start().await;
    let line = |name: &str| a_line(json!({"customerName": name}));
    let long = a_line(json!({UNKNOWN_FIELD: "x".repeat(1024 * 1024)})).to_string();
    let almost = a_line(json!({UNKNOWN_FIELD: "x".repeat(1024 * 1024 - 200)})).to_string();
    let body = format!("{}\n{long}\n{almost}\n{}", ndjson((0..6_000).map(|_| line("n"))).trim_end(), line("last"));
    assert!(body.len() > 2 * 1024 * 1024);
    let (lines, summary) = import(&app, NDJSON, body).await;
    assert_eq!(summary, json!({"lines": 6003, "created": 6002, "exists": 0, "errors": 1}));
    assert_eq!(
        lines[6000],
        json!({"line": 6001, "status": "error", "error": {"code": "PAYLOAD_TOO_LARGE", "message": "The line is longer than 1 MiB"}})
    );
    assert_eq!(app.show(lines[6002]["id"].as_str().unwrap()).await["customerName"], "last");
    // In the order of the file, oldest first.
    let newest = app.get("/api/carts?limit=1").await.data(200);
    assert_eq!(newest["carts"][0]["id"], lines[6002]["id"]);
}

#[tokio::test]
async fn results_stream_during_the_upload_and_idle_uploads_hold_no_connection() {
    let app = Setup::default().without_worker().start().await;
    // More uploads than the api has connections.
    let mut uploads: Vec<Upload> = (0..15).map(|_| Upload::to(&app)).collect();
    for upload in &mut uploads {
        upload.send(ndjson([a_cart(), a_cart()])).await;
        upload.send(a_cart().to_string()).await; // no complete line yet
        assert_eq!(upload.next().await.unwrap()["line"], 1);
        assert_eq!(upload.next().await.unwrap()["status"], "created");
    }
    app.cart().await;
    assert_eq!(count(&app).await, 31);
    for mut upload in uploads {
        upload.send("\n").await;
        assert_eq!(upload.next().await.unwrap()["line"], 3);
        assert_eq!(upload.answer_summary().await, json!({"lines": 3, "created": 3, "exists": 0, "errors": 0}));
    }
}

#[tokio::test]
async fn lines_reported_before_a_disconnect_are_stored() {
    let app = Setup::default().without_worker().start().await;
    let mut upload = Upload::to(&app);
    upload.send(ndjson((0..5).map(|_| a_cart()))).await;
    for _ in 0..5 {
        let answer = upload.next().await.unwrap();
        app.show(answer["id"].as_str().unwrap()).await;
    }
    // Half a line, then a disconnect.
    let line = a_cart().to_string();
    upload.send(&line[..line.len() / 2]).await;
    upload.body.send(Err(std::io::Error::other("gone"))).await.unwrap();
    drop(upload);
    app.cart().await;
    eventually("nothing is stored any more", async || count(&app).await == 6).await;
}

#[tokio::test]
async fn an_import_ends_when_postgres_fails_and_can_be_resumed() {
    let app = Setup::default().without_worker().behind_a_door().start().await;
    let door = app.door.as_ref().unwrap();
    let line = |n: usize| a_line(json!({"externalId": n.to_string()}));
    let mut upload = Upload::to(&app);
    upload.send(ndjson((1..=3).map(line))).await;
    for number in 1..=3 {
        assert_eq!(upload.next().await.unwrap()["line"], number);
    }
    door.close().await;
    upload.send(format!("null\n{}", ndjson((5..=6).map(line)))).await;
    let results: Vec<Value> =
        [upload.next().await, upload.next().await, upload.next().await].into_iter().flatten().collect();
    let codes: Vec<&str> = results.iter().map(|answer| answer["error"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["VALIDATION_ERROR", "UNAVAILABLE", "UNAVAILABLE"]);
    let summary = upload.answer_summary().await;
    assert_eq!((&summary["incomplete"], &summary["nextLine"]), (&json!(true), &json!(5)));
    assert_eq!((&summary["created"], &summary["errors"]), (&json!(3), &json!(3)));
    // An import that begins while Postgres is unavailable returns 503 as usual.
    let refused = send(&app, NDJSON, ndjson((5..=6).map(line))).await;
    refused.is_error(503, "UNAVAILABLE");
    assert!(!refused.header("retry-after").is_empty());
    door.open().await;
    eventually("it goes on", async || send(&app, NDJSON, ndjson((1..=6).map(line))).await.status == 200).await;
    assert_eq!(count(&app).await, 6);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_imports_memory_does_not_grow_with_its_file() {
    use std::time::Duration;

    const LINES: usize = 40_000;
    let shop = crate::processes::Shop::open().await;
    let mut variables = shop.api_variables();
    variables.push(("RATE_LIMIT_PER_MINUTE", "0".to_owned()));
    let mut api = tests::processes::Process::start("api", variables).await;
    api.says("api is listening").await;
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", api.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    };
    let before = peak();
    let request =
        shop.http.post(shop.url("/api/carts/import")).header("x-api-key", "key").timeout(Duration::from_secs(300));
    let mut upload = Upload::begin(request);
    let body = upload.body.clone();
    let sending = tokio::spawn(async move {
        let piece = ndjson((0..500).map(|_| a_line(json!({UNKNOWN_FIELD: "x".repeat(300)}))));
        for _ in 0..LINES / 500 {
            body.send(Ok(piece.clone())).await.unwrap();
        }
    });
    for number in 1..=LINES {
        assert_eq!(upload.next().await.unwrap()["line"], number);
    }
    sending.await.unwrap();
    assert_eq!(upload.answer_summary().await["created"], LINES);
    let (http, exported) = (shop.http.get(shop.url("/api/carts/export")).header("x-api-key", "key"), &mut 0);
    let mut response = http.send().await.unwrap();
    while let Some(piece) = response.chunk().await.unwrap() {
        *exported += piece.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(*exported, LINES);
    let after = peak();
    assert!(after < before + 40, "the peak was {before} MiB before and is {after} MiB");
}
