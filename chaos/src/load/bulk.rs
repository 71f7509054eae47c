//! Imports and exports.

use std::collections::HashMap;

use rand::RngExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Client};
use crate::{
    book::{OwnCart, promises},
    states::{Known, State},
};

/// The maximum number of attempts for a file.
const TIMES: usize = 8;

/// A line of a file.
struct Line {
    email: String,
    total: String,
    is_old: bool,
    is_recovered: bool,
    /// The id of the cart in the response.
    id: Option<String>,
}

impl Client {
    /// Imports a file, repeatedly until every line has a response.
    pub(super) async fn import(&mut self) {
        let mut lines = HashMap::new();
        let mut file = String::new();
        for _ in 0..self.dice.random_range(5..80) {
            let name = self.next_name();
            let email = format!("{name}@example.com");
            let (mut body, total, is_old) = self.new_body(&email);
            let is_recovered = self.dice.random_bool(0.1);
            body["externalId"] = json!(name);
            if is_recovered {
                body["status"] = json!("recovered");
            }
            file.push_str(&format!("{body}\n"));
            lines.insert(name, Line { email, total, is_old, is_recovered, id: None });
        }
        for _ in 0..TIMES {
            if self.send(&file, &mut lines).await {
                break;
            }
        }
        for line in lines.into_values() {
            match line.id {
                Some(id) => {
                    let mut cart = OwnCart::new(&id, &line.email, &line.total);
                    cart.known = Known::new(if line.is_recovered { State::Recovered } else { State::Abandoned });
                    if line.is_old {
                        cart.known.may_come(State::Expired);
                    }
                    self.imported += 1;
                    self.carts.push(cart);
                }
                None => self.unanswered.push(line.email),
            }
        }
    }

    /// Sends the file; returns whether every line has a response.
    async fn send(&mut self, file: &str, lines: &mut HashMap<String, Line>) -> bool {
        let file = file.to_owned();
        // Responses are in the order of the lines.
        let names: Vec<String> = file
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["externalId"].as_str().map(str::to_owned))
            .collect();
        let Some(answers) = self.stream("POST import", Method::POST, "/api/carts/import", Some(file)).await else {
            return false;
        };
        for answer in &answers.lines {
            let place = answer["line"].as_u64().and_then(|line| usize::try_from(line).ok()?.checked_sub(1));
            let (Some(id), Some(line)) = (answer["id"].as_str(), place.and_then(|place| lines.get_mut(&names[place])))
            else {
                continue; // a line that could not be stored yet, or the summary
            };
            match &line.id {
                Some(before) if before != id => {
                    let what = format!("{} was answered {before}, and {id} when it was sent again", line.email);
                    self.scene.book.violation(promises::IMPORTS, what);
                }
                _ => line.id = Some(id.to_owned()),
            }
        }
        answers.complete && lines.values().all(|line| line.id.is_some())
    }

    /// Exports all carts; every acknowledged one must be included.
    pub(super) async fn export(&mut self) {
        let Some(answers) = self.stream("GET export", Method::GET, "/api/carts/export", None).await else { return };
        if !answers.complete {
            return;
        }
        let mut times: HashMap<&str, u32> = HashMap::new();
        for line in &answers.lines {
            *times.entry(line["id"].as_str().unwrap_or_default()).or_default() += 1;
        }
        if let Some((id, times)) = times.iter().find(|(_, times)| **times > 1) {
            self.scene.book.violation(promises::EXPORTS, format!("{id} is in it {times} times"));
        }
        // Only this client deletes its carts, and it does not do so meanwhile.
        let missing =
            |cart: &&OwnCart| !cart.known.possible().has(State::Gone) && !times.contains_key(cart.id.as_str());
        for cart in self.carts.iter().filter(missing) {
            self.scene.book.violation(promises::EXPORTS, format!("{} is not in it", cart.id));
        }
    }

    /// Streams lines of JSON until the response ends or breaks.
    async fn stream(&mut self, kind: &'static str, method: Method, path: &str, body: Option<String>) -> Option<Lines> {
        let api = self.api();
        let url = format!("http://{}{path}", self.scene.members[api].address);
        let mut request =
            self.scene.http.request(method, url).timeout(3 * super::GIVE_UP).header("x-api-key", crate::API_KEY);
        if let Some(body) = body {
            request = request.header("content-type", "application/x-ndjson").body(body);
        }
        let begun = std::time::Instant::now();
        let mut response = match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => response,
            Ok(response) => {
                let (status, member) = (response.status(), &self.scene.members[api]);
                let text = response.text().await.unwrap_or_default();
                let Answer::Said(..) = self.judge(kind, path, member, begun, status, &text) else { return None };
                return None;
            }
            Err(_) => {
                self.scene.book.ended(kind, "no answer");
                return None;
            }
        };
        let mut text = Vec::new();
        let complete = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => text.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        self.scene.book.ended(kind, if complete { "done" } else { "cut off" });
        let text = String::from_utf8_lossy(&text).into_owned();
        // Drop a line that was cut off.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Some(Lines { lines: whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), complete })
    }
}

struct Lines {
    lines: Vec<Value>,
    complete: bool,
}
