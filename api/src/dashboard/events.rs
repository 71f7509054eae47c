//! `/events`: server-sent events that notify an open page of changes. They only name what changed;
//! the page is loaded again, so that there is one way to render it.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{guard, watch::Change};
use crate::{http::error::ApiError, state::AppState};

/// Interval of pings, so that proxies keep the connection, and pages notice when it is lost.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Delay after which a page that lost the connection reconnects.
const RETRY: Duration = Duration::from_secs(2);

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/events", get(show))
}

/// Returns 401 to a client that is not signed in; browsers do not retry after that.
async fn show(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    let session = guard::signed_in(&state, &headers).await?.ok_or_else(ApiError::unauthorized)?.session;
    let left = (session.ends_at - state.clock.now()).to_std().unwrap_or_default();
    let watch = state.dashboard.watch.begin();
    let over = async move {
        tokio::select! {
            () = state.dashboard.stopping.cancelled() => {}
            // The session ends when it expires, when it is signed out, or with its key.
            () = tokio::time::sleep(left) => {}
            () = state.keys.session_ended(session.key, session.hash) => {}
        }
    };
    let events = changes(watch).take_until(Box::pin(over));
    let hello = stream::once(async { Ok(Event::default().event("hello").data("watching").retry(RETRY)) });
    let ping = Event::default().event("ping").data("");
    let mut response =
        Sse::new(hello.chain(events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).event(ping)).into_response();
    // A proxy that buffers responses would hold the events back.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

fn changes(receiver: Receiver<Change>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(receiver, |mut receiver| async {
        let event = match receiver.recv().await {
            Ok(Change::Carts) => "carts",
            Ok(Change::Jobs) => "jobs",
            Ok(Change::Unknown) => "everything",
            Ok(Change::Cart(id)) => return Some((Ok(Event::default().event("changed").data(id)), receiver)),
            Err(RecvError::Lagged(_)) => "everything",
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(Event::default().event("changed").data(event)), receiver))
    })
}
