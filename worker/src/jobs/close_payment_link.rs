//! Closes the Stripe session of a link that must not be paid any more.

use std::time::Duration;

use apalis::prelude::Data;
use common::{
    jobs::ClosePaymentLink,
    operations::{self, JobState},
    payment_links::{self, LinkStatus},
};

use super::close_session;
use crate::{JobError, State};

/// Delay before a retry while the session is being created.
const WHILE_IT_IS_MADE: Duration = Duration::from_secs(2);

pub(crate) async fn run(job: ClosePaymentLink, state: Data<State>) -> Result<(), JobError> {
    let state = &*state;
    let mut conn = state.lookups.acquire().await?;
    let Some(link) = payment_links::find(&mut conn, &job.cart_id, job.version).await? else { return Ok(()) };
    if !matches!(link.status, LinkStatus::Closing | LinkStatus::Settling) {
        return Ok(());
    }
    if link.session_id.is_none() {
        // If the creating job is running, it sees that the link was withdrawn and closes its
        // session itself. If it waits for a retry, it will not call Stripe again, so this job must
        // find out whether a session exists.
        let making = operations::find(&mut conn, link.job_id).await?;
        if making.is_some_and(|making| making.state == JobState::Running) {
            return Err(JobError::Retry {
                why: "the session is just being made".to_owned(),
                after: Some(WHILE_IT_IS_MADE),
            });
        }
    }
    drop(conn);
    close_session::settle(state, &link).await?;
    Ok(())
}
