//! The API under `/v1/checkout/sessions`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, RawForm, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{
    Shared, event_list,
    faults::{Fault, Operation},
    form::{Parameters, parse_form},
    gate::{authorize, is_live, meet, reset},
    lists, lock,
    new_session::new_session,
    payments::expansions,
    refusal::Refusal,
    sessions::{Session, SessionStatus, Stored},
};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/checkout/sessions", post(create).get(list))
        .route("/v1/checkout/sessions/{id}", get(retrieve))
        .route("/v1/checkout/sessions/{id}/expire", post(expire))
        .route("/v1/checkout/sessions/{id}/line_items", get(line_items))
        .route("/v1/events", get(event_list::list))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "Unrecognized request URL") })
        .with_state(shared)
}

/// The response, with fields replaced by [`Fault::Altered`].
fn altered(mut answer: Value, fault: Option<Fault>) -> Value {
    if let Some(Fault::Altered(fields)) = fault
        && let Ok(Value::Object(fields)) = serde_json::from_str(fields)
    {
        for (name, value) in fields {
            answer[name] = value;
        }
    }
    answer
}

async fn create(State(shared): State<Arc<Shared>>, headers: HeaderMap, RawForm(form): RawForm) -> Response {
    let fault = match meet(&shared, &headers, Operation::Create).await {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let parameters = parse_form(&form);
    if let Some(Fault::Repeats { status }) = fault {
        return Refusal::repeating(status, &headers, &parameters).into_response();
    }
    let response = create_once(&shared, &key, is_live(&headers), parameters, fault);
    shared.save();
    if fault == Some(Fault::ResetAfter) {
        reset();
    }
    if fault == Some(Fault::Held) {
        shared.faults.let_go.notified().await;
    }
    response
}

/// Creates at most one session for each idempotency key.
fn create_once(shared: &Shared, key: &str, livemode: bool, parameters: Parameters, fault: Option<Fault>) -> Response {
    let mut sessions = lock(&shared.sessions);
    if let Some(stored) = sessions.stored(key).filter(|_| !key.is_empty()) {
        if stored.parameters != parameters {
            return Refusal::key_reused().into_response();
        }
        let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return (status, [("idempotent-replayed", "true")], Json(stored.body.clone())).into_response();
    }
    let (status, body) = if fault == Some(Fault::ServerError) {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"error": {"type": "api_error", "message": "An unknown error occurred"}}),
        )
    } else {
        let session = match new_session(&parameters, shared.config.clock.now()) {
            Ok(session) => session.in_mode(livemode),
            Err(refusal) => return refusal.into_response(), // refusals are not stored
        };
        let mut body = altered(session.to_json(&shared.url()), fault);
        if fault == Some(Fault::NoUrl) {
            body["url"] = Value::Null;
        }
        if fault == Some(Fault::OtherAmount) {
            body["amount_total"] = json!(session.amount_total + 1);
        }
        if fault == Some(Fault::OtherSession) {
            body["metadata"]["link_version"] = json!("99");
        }
        if fault == Some(Fault::ForeignUrl) {
            body["url"] = json!("https://checkout.stripe.com.evil.example/c/pay/cs_test_1");
        }
        sessions.add(session);
        (StatusCode::OK, body)
    };
    sessions.store(key, Stored { parameters, status: status.as_u16(), body: body.clone() });
    (status, Json(body)).into_response()
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let fault = match meet(&shared, &headers, Operation::Retrieve).await {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    let sessions = lock(&shared.sessions);
    let Some(session) = sessions.find(&id) else { return no_such(&id).into_response() };
    match session.expand(session.to_json(&shared.url()), &expansions(&query, "")) {
        Ok(session) => Json(altered(session, fault)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn no_such(id: &str) -> Refusal {
    Refusal::missing(StatusCode::NOT_FOUND, id)
}

async fn expire(State(shared): State<Arc<Shared>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let fault = match meet(&shared, &headers, Operation::Expire).await {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    if let Some(Fault::Repeats { status }) = fault {
        return Refusal::repeating(status, &headers, &Parameters::new()).into_response();
    }
    if lock(&shared.sessions).find(&id).is_none() {
        return no_such(&id).into_response();
    }
    let is_open = |session: &Session| session.status == SessionStatus::Open;
    let expired = lock(&shared.sessions).change(&id, is_open, |session| session.status = SessionStatus::Expired);
    shared.save();
    if fault == Some(Fault::ResetAfter) {
        reset();
    }
    match expired {
        Ok(session) => {
            let answer = altered(session.to_json(&shared.url()), fault);
            let (sender, on_its_way) = (shared.clone(), shared.traffic.begin());
            tokio::spawn(async move {
                sender.send(&session, "checkout.session.expired").await;
                drop(on_its_way);
            });
            if fault == Some(Fault::Held) {
                shared.faults.let_go.notified().await;
            }
            Json(answer).into_response()
        }
        Err(_) => {
            Refusal::invalid("Only Checkout Sessions with a status in [\"open\"] can be expired.").into_response()
        }
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let fault = match meet(&shared, &headers, Operation::List).await {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    let (parameters, expand) = (query.iter().cloned().collect(), expansions(&query, "data."));
    let sessions = lock(&shared.sessions);
    let (page, has_more) = match lists::page(&parameters, sessions.newest_first(), |_| true) {
        Ok(page) => page,
        Err(refusal) => return refusal.into_response(),
    };
    let sessions = page.iter().map(|session| {
        let mut json = session.to_json(&shared.url());
        if let Some(Fault::Padded(bytes)) = fault {
            json["custom_text"]["submit"] = json!({"message": "x".repeat(bytes)});
        }
        session.expand(json, &expand)
    });
    let expanded: Result<Vec<Value>, Refusal> = sessions.collect();
    let data = match expanded {
        Ok(data) => data,
        Err(refusal) => return refusal.into_response(),
    };
    let list = json!({"object": "list", "url": "/v1/checkout/sessions", "has_more": has_more, "data": data});
    Json(altered(list, fault)).into_response()
}

async fn line_items(State(shared): State<Arc<Shared>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refusal) = authorize(&shared, &headers, Operation::Retrieve) {
        return refusal.into_response();
    }
    match lock(&shared.sessions).find(&id) {
        Some(session) => Json(json!({
            "object": "list", "has_more": false, "url": format!("/v1/checkout/sessions/{id}/line_items"),
            "data": session.lines.iter().map(|line| json!({
                "object": "item", "description": line.name, "quantity": line.quantity, "currency": session.currency,
                "amount_total": line.unit_amount * line.quantity, "price": {"unit_amount": line.unit_amount},
            })).collect::<Vec<_>>(),
        }))
        .into_response(),
        None => no_such(&id).into_response(),
    }
}

impl Shared {
    /// Where browsers reach the payment pages.
    pub(super) fn url(&self) -> String {
        self.config.public_url.clone().unwrap_or_else(|| format!("http://{}", self.address))
    }
}
