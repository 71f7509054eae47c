//! Deletes what has been kept for long enough.

use apalis::prelude::Data;
use common::{jobs::DeleteOldRecords, maintenance};

use crate::{JobError, State};

pub(crate) async fn run(_: DeleteOldRecords, state: Data<State>) -> Result<(), JobError> {
    let now = state.clock.now();
    while maintenance::delete_batch(&mut *state.pool.acquire().await?, now).await? {}
    Ok(())
}
