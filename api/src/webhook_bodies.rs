//! Reads the bodies of webhooks. Anybody may send them, and each has to be there as
//! a whole before its signature can be looked at: what all of them hold is bounded.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    BODY_BYTES,
    body::{check_encoding, within_time},
    error::ApiError,
};

/// Nearly all of Stripe's events are smaller …
const SMALL_BYTES: usize = 16 * 1024;
/// … and so many may be under way at once, so that those who send large ones, or
/// slowly, do not keep Stripe out.
const SMALL: usize = 4096;
/// Larger ones, of up to 1 MiB each.
const LARGE: usize = 64;

/// Places for what is being read: 128 MiB at most.
#[derive(Debug, Clone)]
pub(crate) struct WebhookBodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for WebhookBodies {
    fn default() -> Self {
        Self { small: Arc::new(Semaphore::new(SMALL)), large: Arc::new(Semaphore::new(LARGE)) }
    }
}

impl WebhookBodies {
    /// The body as it came, at most 1 MiB. Stripe sends again what finds no place.
    pub(crate) async fn read(&self, request: Request) -> Result<Bytes, ApiError> {
        check_encoding(request.headers())?;
        let _place = place(&self.small)?;
        within_time(self.read_all(request.into_body())).await?
    }

    async fn read_all(&self, body: Body) -> Result<Bytes, ApiError> {
        // What the client announces need not be read first.
        let announced = axum::body::HttpBody::size_hint(&body).lower();
        if announced > BODY_BYTES as u64 {
            return Err(ApiError::too_large());
        }
        let mut body = body.into_data_stream();
        let mut large = None;
        let mut read = Vec::with_capacity(usize::try_from(announced).unwrap_or_default().min(SMALL_BYTES));
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| ApiError::bad_request("The body could not be read to its end"))?;
            if read.len() + piece.len() > BODY_BYTES {
                return Err(ApiError::too_large());
            }
            if read.len() + piece.len() > SMALL_BYTES && large.is_none() {
                large = Some(place(&self.large)?);
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.into())
    }
}

fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, ApiError> {
    places.try_acquire().map_err(|_| ApiError::busy())
}
