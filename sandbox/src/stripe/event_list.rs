//! `GET /v1/events` (<https://docs.stripe.com/api/events/list>): the newest events, also those that
//! were never delivered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Shared, faults::Operation, gate::meet, lock, refusal::Refusal};

/// The number of events that are kept. Stripe keeps those of the last 30 days.
const KEPT: usize = 10_000;

/// The newest events, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventList(Mutex<VecDeque<Value>>);

impl Shared {
    /// Adds the event to the list; returns it.
    pub(super) fn record(&self, event: Value) -> Value {
        let mut events = lock(&self.events.0);
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event.clone());
        event
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(parameters): Query<BTreeMap<String, String>>,
) -> Response {
    if let Err(response) = meet(&shared, &headers, Operation::ListEvents).await {
        return response;
    }
    let number = |name: &str, otherwise| parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let created = number("created[gte]", i64::MIN)..=number("created[lte]", i64::MAX);
    let limit = usize::try_from(number("limit", 10)).unwrap_or(10).clamp(1, 100);
    let kind = parameters.get("type");
    let events = lock(&shared.events.0);
    let is_asked_for = |event: &&Value| {
        kind.is_none_or(|kind| event["type"] == kind.as_str())
            && event["created"].as_i64().is_some_and(|at| created.contains(&at))
    };
    let skipped = match parameters.get("starting_after") {
        None => 0,
        Some(last) => match events.iter().rev().position(|event| event["id"] == last.as_str()) {
            Some(place) => place + 1,
            None => return Refusal::missing(StatusCode::BAD_REQUEST, last).into_response(),
        },
    };
    let mut page: Vec<&Value> = events.iter().rev().skip(skipped).filter(is_asked_for).take(limit + 1).collect();
    let has_more = page.len() > limit;
    page.truncate(limit);
    Json(json!({"object": "list", "url": "/v1/events", "has_more": has_more, "data": page})).into_response()
}
