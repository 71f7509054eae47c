//! Deletes records after their retention.

use apalis::prelude::Data;
use common::{jobs::DeleteOldRecords, maintenance};

use crate::{JobError, State};

pub(crate) async fn run(_: DeleteOldRecords, state: Data<State>) -> Result<(), JobError> {
    let now = state.clock.now();
    loop {
        let mut conn = state.database.acquire().await?;
        let more = maintenance::delete_batch(&mut conn, &state.config.record_retention, now).await?;
        conn.commit().await?;
        if !more {
            return Ok(());
        }
    }
}
