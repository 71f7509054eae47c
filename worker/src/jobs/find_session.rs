//! Searches Stripe's list for a session that may exist although Stripe's response was lost.
//!
//! The account may have created any number of sessions at that time. Progress is stored after each
//! page, and a run that made progress does not count as an attempt, so a search of any length
//! finishes although each run of a job is limited to a minute.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use common::payment_links::{self, PaymentLink, Search};

use super::SLACK;
use crate::{
    JobError, State,
    stripe::{Session, error::StripeError},
};

/// Time after which Stripe has certainly processed a request; Stripe's own clients wait for less.
/// Shorter than [`SLACK`], so the list includes sessions created during this time.
const IN_FLIGHT: TimeDelta = TimeDelta::minutes(2);
/// Sessions per page, Stripe's maximum. Halved if the response is too large.
const LIMIT: i64 = 100;
/// Maximum number of requests in one run of a job.
const CALLS: usize = 20;
/// Time after which a run sends no more requests. The last one may take as long as any call.
const TIME: Duration = Duration::from_secs(25);
/// Pause before the next run.
const SOON: Duration = Duration::from_millis(100);

/// Whether a request to create the session may still be in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// Unknown.
    Perhaps,
    /// Stripe has processed the request.
    No,
}

/// Finds the link's session among those created around the attempts; `None` if there is none.
///
/// # Errors
/// [`JobError::Snooze`] if more of the list has to be read, or if Stripe may still create the
/// session; [`JobError::Retry`] if the list is inconsistent; errors of Stripe and Postgres.
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
    let mut limit = LIMIT;
    let mut read: HashSet<String> = search.after.iter().cloned().collect();
    let mut pages = 0;
    for calls in 0.. {
        if calls == CALLS || begun.elapsed() > TIME {
            return Err(if pages > 0 {
                goes_on()
            } else {
                JobError::retry("Stripe's list of sessions takes too long")
            });
        }
        let page = match state.stripe.sessions(from, to, search.after.as_deref(), limit).await {
            Ok(page) => page,
            Err(StripeError::TooLarge) if limit > 1 => {
                limit /= 2;
                continue;
            }
            Err(error) if search.after.is_some() && error.is_unknown_cursor() => {
                return Err(begin_anew(state, link, error.to_string()).await?);
            }
            Err(error) => {
                let error = JobError::from(error);
                // The pages read so far are stored.
                return Err(if pages > 0 { error.without_counting(SOON) } else { error });
            }
        };
        pages += 1;
        let last = page.data.last().map(|session| session.id.clone()).filter(|last| !read.contains(last));
        read.extend(page.data.iter().map(|session| session.id.clone()));
        let found = page.data.into_iter().find(|session| session.is_of(&link.cart_id, link.version));
        if let Some(found) = found {
            if is_held_by_another(state, link, &found.id).await? {
                return Err(JobError::retry(
                    "Stripe's list of sessions does not fit: another payment link has the session",
                ));
            }
            return Ok(Some(found));
        }
        if page.has_more && last.is_none() {
            return Err(begin_anew(state, link, "Stripe's list of sessions does not go on".to_owned()).await?);
        }
        search.after = last.filter(|_| page.has_more);
        save(state, link, Some(&search)).await?;
        if search.after.is_none() {
            break;
        }
    }
    if search.began_at >= quiet { Ok(None) } else { Err(not_yet(quiet - state.clock.now())) }
}

async fn saved(state: &State, link: &PaymentLink) -> Result<Option<Search>, JobError> {
    Ok(payment_links::search(&mut state.lookups.acquire().await?, &link.cart_id, link.version).await?)
}

/// Discards the progress, so that the next run reads the list from its start. The attempt counts.
async fn begin_anew(state: &State, link: &PaymentLink, why: String) -> Result<JobError, JobError> {
    save(state, link, None).await?;
    Ok(JobError::retry(why))
}

async fn save(state: &State, link: &PaymentLink, search: Option<&Search>) -> Result<(), JobError> {
    let mut conn = state.lookups.acquire().await?;
    payment_links::save_search(&mut conn, &link.cart_id, link.version, search).await?;
    conn.commit().await?;
    Ok(())
}

fn goes_on() -> JobError {
    let why = "the search for a lost session goes on: many sessions were made at that time";
    JobError::Snooze { why: why.to_owned(), after: SOON }
}

/// The list has no such session, but Stripe may still create it: search again after `wait`.
fn not_yet(wait: TimeDelta) -> JobError {
    let after = wait.to_std().unwrap_or_default().max(SOON);
    JobError::Snooze { why: "the search for a lost session is repeated: Stripe may still make it".to_owned(), after }
}

/// Whether another link than this one has the session: then it is not this one's to close.
pub(crate) async fn is_held_by_another(state: &State, link: &PaymentLink, session_id: &str) -> sqlx::Result<bool> {
    payment_links::is_held_by_another(&mut state.lookups.acquire().await?, link, session_id).await
}
