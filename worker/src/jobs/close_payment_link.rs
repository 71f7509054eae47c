//! Closes a session of a cart that is done with.

use std::time::Duration;

use apalis::prelude::Data;
use common::{
    jobs::ClosePaymentLink,
    operations::{self, JobState},
    payment_links::{self, LinkStatus},
};

use super::close_session;
use crate::{JobError, State};

/// How long to leave a request alone that is being made this very moment.
const WHILE_IT_IS_MADE: Duration = Duration::from_secs(2);

pub(crate) async fn run(job: ClosePaymentLink, state: Data<State>) -> Result<(), JobError> {
    let state = &*state;
    let mut conn = state.lookups.acquire().await?;
    let Some(link) = payment_links::find(&mut conn, &job.cart_id, job.version).await? else { return Ok(()) };
    if !matches!(link.status, LinkStatus::Closing | LinkStatus::Settling) {
        return Ok(());
    }
    if link.session_id.is_none() {
        // Its creation may be under way: that job sees it was withdrawn and
        // closes what it made. One that only waits for a retry will never ask
        // Stripe again, so what it may have made has to be found out here.
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
