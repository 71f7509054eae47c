//! Searches Stripe's list for a session that Stripe may have made although the answer was lost.
//!
//! The account may have made any number of sessions at that time. Progress is stored page by
//! page, and a run that made progress does not count as an attempt, so a search of any length
//! ends although each run of a job is limited to a minute.

use std::time::Duration;

use chrono::TimeDelta;
use common::payment_links::{self, PaymentLink, Search};

use crate::{JobError, State, stripe::Session};

/// Allowed difference between our clocks and Stripe's.
const SLACK: TimeDelta = TimeDelta::minutes(5);
/// How long Stripe may go on with a request whose caller stopped waiting. (Closing also waits while the job that
/// sent the request runs: until the answer, the timeout or the end of its lease.)
const IN_FLIGHT: TimeDelta = TimeDelta::seconds(10);
/// The most pages, of 100 sessions each, that one run of a job reads.
const PAGES: usize = 20;
/// How long one run reads. The last page may take up to the timeout of a call longer.
const TIME: Duration = Duration::from_secs(25);
/// Pause before the next run.
const SOON: Duration = Duration::from_millis(100);

/// Whether a request to make the session may still be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// Unknown.
    Perhaps,
    /// Stripe has answered it.
    No,
}

/// Finds the link's session among all sessions made around the attempts; `None` if there is none.
///
/// # Errors
/// [`JobError::Snooze`] if more of the list has to be read.
pub(crate) async fn find(state: &State, link: &PaymentLink, in_flight: InFlight) -> Result<Option<Session>, JobError> {
    let Some(attempted_at) = link.attempted_at else { return Ok(None) };
    // The link was withdrawn at `updated_at`, and no attempt began later.
    let last = link.updated_at.max(attempted_at);
    let (from, to) = (attempted_at - SLACK, last + SLACK);
    let quiet = match in_flight {
        InFlight::Perhaps => last + IN_FLIGHT,
        InFlight::No => attempted_at,
    };
    let now = state.clock.now();
    let mut search = match saved(state, link).await? {
        Some(Search { after: None, .. }) if now < quiet => return Err(not_yet(quiet - now)),
        Some(search @ Search { after: Some(_), .. }) => search,
        _ => Search { began_at: now, after: None },
    };
    let begun = tokio::time::Instant::now();
    for pages in 0.. {
        if pages == PAGES || begun.elapsed() > TIME {
            return Err(unfinished());
        }
        let page = match state.stripe.sessions(from, to, search.after.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                let error = JobError::from(error);
                // The pages read so far are stored.
                return Err(if pages > 0 { error.without_counting(SOON) } else { error });
            }
        };
        search.after = page.data.last().map(|session| session.id.clone()).filter(|_| page.has_more);
        let found = page.data.into_iter().find(|session| session.is_of(&link.cart_id, link.version));
        if found.is_some() {
            return Ok(found);
        }
        save(state, link, &search).await?;
        if search.after.is_none() {
            break;
        }
    }
    if search.began_at >= quiet { Ok(None) } else { Err(not_yet(quiet - state.clock.now())) }
}

async fn saved(state: &State, link: &PaymentLink) -> Result<Option<Search>, JobError> {
    Ok(payment_links::search(&mut state.by_key.acquire().await?, &link.cart_id, link.version).await?)
}

async fn save(state: &State, link: &PaymentLink, search: &Search) -> Result<(), JobError> {
    let mut conn = state.by_key.acquire().await?;
    payment_links::save_search(&mut conn, &link.cart_id, link.version, search).await?;
    conn.commit().await?;
    Ok(())
}

/// The list is longer than one run reads.
fn unfinished() -> JobError {
    let why = "the search for a lost session continues: many sessions were made at that time";
    JobError::Snooze { why: why.to_owned(), after: SOON }
}

/// The list has no such session, but Stripe may still make it.
fn not_yet(wait: TimeDelta) -> JobError {
    let after = wait.to_std().unwrap_or_default().max(SOON);
    JobError::Snooze { why: "the search for a lost session is repeated: Stripe may still make it".to_owned(), after }
}
