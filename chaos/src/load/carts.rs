//! The clients' requests about single carts.

use chrono::TimeDelta;
use common::clock::Clock;
use rand::RngExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Client};
use crate::{
    book::{OwnCart, promises},
    states::State,
};

/// The maximum number of attempts under one idempotency key.
const TIMES: usize = 6;

impl Client {
    /// A body, its total, and whether the cart is old enough to expire.
    pub(super) fn new_body(&mut self, email: &str) -> (Value, String, bool) {
        // Totals don't end in 0, so that each has only one spelling.
        let (quantity, dollars) = ([1, 3][self.dice.random_range(0..2)], self.dice.random_range(1..200));
        let cents = quantity * (dollars * 100 + 99);
        let mut body = json!({
            "customerEmail": email, "customerName": "Ada Lovelace",
            "items": [{"name": "Teapot", "quantity": quantity, "price": dollars}],
        });
        body["items"][0]["price"] = serde_json::from_str(&format!("{dollars}.99")).unwrap_or(Value::Null);
        let is_old = self.dice.random_bool(0.15);
        if is_old {
            body["abandonedAt"] = json!(Clock::system().now() - TimeDelta::days(2));
        }
        (body, format!("{}.{:02}", cents / 100, cents % 100), is_old)
    }

    fn keep(&mut self, id: &str, email: &str, total: &str, is_old: bool) -> &mut OwnCart {
        let mut cart = OwnCart::new(id, email, total);
        if is_old {
            cart.known.may_come(State::Expired);
        }
        self.carts.push(cart);
        let place = self.carts.len() - 1;
        &mut self.carts[place]
    }

    pub(super) async fn create(&mut self) {
        let email = format!("{}@example.com", self.next_name());
        let (body, total, is_old) = self.new_body(&email);
        match self.ask("POST carts", Method::POST, "/api/carts", |request| request.json(&body)).await {
            Answer::Said(StatusCode::CREATED, answer) => {
                let id = answer["data"]["id"].as_str().unwrap_or_default().to_owned();
                let cart = self.keep(&id, &email, &total, is_old).clone();
                self.hold_against(&cart, &answer["data"]);
            }
            Answer::Said(status, answer) => self.not_documented("POST carts", status, &answer),
            Answer::Unknown => self.unanswered.push(email),
        }
    }

    /// Creates a cart under an idempotency key, with retries until there is a response.
    pub(super) async fn create_once(&mut self) {
        let name = self.next_name();
        let email = format!("{name}@example.com");
        let (body, total, is_old) = self.new_body(&email);
        for _ in 0..TIMES {
            let with_key = |request: reqwest::RequestBuilder| request.header("idempotency-key", &name).json(&body);
            match self.ask("POST carts with a key", Method::POST, "/api/carts", with_key).await {
                Answer::Said(StatusCode::CREATED, answer) => {
                    let id = answer["data"]["id"].as_str().unwrap_or_default().to_owned();
                    let cart = self.keep(&id, &email, &total, is_old);
                    cart.idempotent = Some((name.clone(), body.to_string()));
                    let cart = cart.clone();
                    self.hold_against(&cart, &answer["data"]);
                    return;
                }
                Answer::Said(status, answer) => return self.not_documented("POST carts with a key", status, &answer),
                Answer::Unknown => {}
            }
        }
        self.unanswered.push(email);
    }

    pub(super) async fn show(&mut self) {
        let Some(place) = self.pick() else { return };
        self.show_at(place).await;
    }

    /// Reads a cart and checks it against its known states.
    async fn show_at(&mut self, place: usize) {
        let path = format!("/api/carts/{}", self.carts[place].id);
        match self.ask("GET cart", Method::GET, &path, |request| request).await {
            Answer::Said(StatusCode::OK, answer) => {
                let cart = self.carts[place].clone();
                self.hold_against(&cart, &answer["data"]);
                self.said(place, "GET cart", answer["data"]["status"].as_str().and_then(State::parse));
            }
            Answer::Said(StatusCode::NOT_FOUND, _) => self.said(place, "GET cart", Some(State::Gone)),
            Answer::Said(status, answer) => self.not_documented("GET cart", status, &answer),
            Answer::Unknown => {}
        }
    }

    /// Checks that the state in a response is possible.
    pub(super) fn said(&mut self, place: usize, kind: &str, state: Option<State>) {
        let cart = &mut self.carts[place];
        let possible = cart.known.possible();
        match state.filter(|state| possible.has(*state)) {
            Some(state) => cart.known.said(state),
            None => {
                let what = format!("{kind} of {} says {state:?}, which can only be {possible:?}", cart.id);
                self.scene.book.violation(promises::READS, what);
                if let Some(state) = state {
                    cart.known.said(state); // report it only once
                }
            }
        }
    }

    /// Checks that an acknowledged change was allowed from the known states.
    fn changed(&mut self, place: usize, kind: &str, state: State) {
        let cart = &mut self.carts[place];
        if !cart.known.can_become(state) {
            let what = format!("{kind} of {} to {state:?}, which was {:?}", cart.id, cart.known.possible());
            self.scene.book.violation(promises::READS, what);
        }
        self.carts[place].known.said(state);
    }

    fn hold_against(&self, cart: &OwnCart, answer: &Value) {
        let (email, total) = (answer["customerEmail"].as_str(), answer["totalValue"].to_string());
        if email != Some(&cart.email) || total != cart.total || answer["id"].as_str() != Some(&cart.id) {
            let what = format!("{answer} should be {}, {}, {}", cart.id, cart.email, cart.total);
            self.scene.book.violation(promises::READS, what);
        }
    }

    pub(super) fn not_documented(&self, kind: &str, status: StatusCode, answer: &Value) {
        self.scene.book.violation(promises::DOCUMENTED, format!("{kind}: {status} {answer}"));
    }

    pub(super) async fn change(&mut self) {
        let Some(place) = self.pick() else { return };
        // Recovering by hand is final, so it is rarer.
        let wanted = ["expired", "abandoned", "expired", "abandoned", "recovered"][self.dice.random_range(0..5)];
        let target = State::parse(wanted).unwrap_or(State::Abandoned);
        let path = format!("/api/carts/{}", self.carts[place].id);
        let change = json!({"status": wanted});
        match self.ask("PATCH cart", Method::PATCH, &path, |request| request.json(&change)).await {
            Answer::Said(StatusCode::OK, answer) => {
                let now = answer["data"]["status"].as_str().and_then(State::parse);
                if now != Some(target) {
                    let what = format!("PATCH of {} to {wanted} answers {answer}", self.carts[place].id);
                    self.scene.book.violation(promises::READS, what);
                }
                self.changed(place, "PATCH cart", target);
            }
            Answer::Said(StatusCode::CONFLICT, _) => self.said(place, "PATCH cart", Some(State::Recovered)),
            Answer::Said(StatusCode::NOT_FOUND, _) => self.said(place, "PATCH cart", Some(State::Gone)),
            Answer::Said(status, answer) => self.not_documented("PATCH cart", status, &answer),
            Answer::Unknown => self.carts[place].known.may_come(target),
        }
    }

    pub(super) async fn delete(&mut self) {
        let Some(place) = self.pick() else { return };
        let path = format!("/api/carts/{}", self.carts[place].id);
        let answer = self.ask("DELETE cart", Method::DELETE, &path, |request| request).await;
        match answer {
            Answer::Said(StatusCode::OK, _) => self.changed(place, "DELETE cart", State::Gone),
            Answer::Said(StatusCode::NOT_FOUND, _) => self.said(place, "DELETE cart", Some(State::Gone)),
            Answer::Said(status, answer) => self.not_documented("DELETE cart", status, &answer),
            Answer::Unknown => self.carts[place].known.may_come(State::Gone),
        }
    }

    pub(super) async fn list(&mut self) {
        let status = ["", "&status=abandoned", "&status=recovered", "&status=expired"][self.dice.random_range(0..4)];
        let path = format!("/api/carts?limit=20&page={}{status}", self.dice.random_range(1..6));
        let Answer::Said(StatusCode::OK, answer) = self.ask("GET carts", Method::GET, &path, |request| request).await
        else {
            return;
        };
        let carts = answer["data"]["carts"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<&str> = carts.iter().filter_map(|cart| cart["id"].as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != carts.len() || !answer["data"]["pagination"]["total"].is_number() {
            self.scene.book.violation(promises::READS, format!("GET {path} answers {answer}"));
        }
    }

    pub(super) async fn show_timeline(&mut self) {
        let Some(place) = self.pick() else { return };
        let path = format!("/api/carts/{}/timeline", self.carts[place].id);
        let before = self.carts[place].known.possible();
        let Answer::Said(status, answer) = self.ask("GET timeline", Method::GET, &path, |request| request).await else {
            return;
        };
        if status == StatusCode::NOT_FOUND {
            return self.said(place, "GET timeline", Some(State::Gone));
        }
        let events = answer["data"]["events"].as_array().cloned().unwrap_or_default();
        let tells = |kind: &str| events.iter().any(|event| event["kind"] == kind);
        let is_recovered = before == crate::states::States::of(State::Recovered);
        let whole = answer["data"]["pagination"]["nextCursor"].is_null();
        if whole && (!tells("created") || (is_recovered && !tells("recovered"))) {
            self.scene.book.violation(promises::READS, format!("{path} leaves something out: {answer}"));
        }
    }
}
