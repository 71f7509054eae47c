//! `GET /v1/events` (<https://docs.stripe.com/api/events/list>): the newest events, also those that
//! were never delivered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Json,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Shared,
    faults::Operation,
    form::Parameters,
    gate::meet,
    lists::{self, Listed},
    lock,
};

/// The number of events that are kept. Stripe keeps those of the last 30 days.
const KEPT: usize = 10_000;

/// The newest events, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventList(Mutex<VecDeque<Value>>);

impl Listed for Value {
    fn id(&self) -> &str {
        self["id"].as_str().unwrap_or_default()
    }

    fn created(&self) -> i64 {
        self["created"].as_i64().unwrap_or_default()
    }
}

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
    Query(parameters): Query<Parameters>,
) -> Response {
    if let Err(response) = meet(&shared, &headers, Operation::ListEvents).await {
        return response;
    }
    let kind = parameters.get("type");
    let events = lock(&shared.events.0);
    let is_wanted = |event: &Value| kind.is_none_or(|kind| event["type"] == kind.as_str());
    let (page, has_more) = match lists::page(&parameters, events.iter().rev(), is_wanted) {
        Ok(page) => page,
        Err(refusal) => return refusal.into_response(),
    };
    Json(json!({"object": "list", "url": "/v1/events", "has_more": has_more, "data": page})).into_response()
}
