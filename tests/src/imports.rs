//! Imports of carts.

use reqwest::Method;
use serde_json::Value;

use crate::{Answer, App};

/// The media type of lines of JSON.
pub const NDJSON: &str = "application/x-ndjson";

/// Sends an import.
pub async fn send(app: &App, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
    app.send(app.request(Method::POST, "/api/carts/import").header("content-type", kind).body(body)).await
}

/// The answers to the lines, and the summary.
///
/// # Panics
/// If the import was refused.
pub fn answers(answer: &Answer) -> (Vec<Value>, Value) {
    assert_eq!((answer.status, answer.header("content-type")), (200, NDJSON), "{}", answer.text);
    let mut lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let summary = lines.pop().expect("a summary")["summary"].take();
    (lines, summary)
}

/// Imports a file: the answers to the lines, and the summary.
pub async fn import(app: &App, kind: &str, body: impl Into<reqwest::Body>) -> (Vec<Value>, Value) {
    answers(&send(app, kind, body).await)
}

/// A file of lines of JSON.
pub fn ndjson(lines: impl IntoIterator<Item = Value>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}
