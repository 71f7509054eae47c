//! Deletes records after their retention, and gives up requests for links whose jobs are gone.

use apalis::prelude::Data;
use common::{jobs::DeleteOldRecords, maintenance, payment_links};

use crate::{JobError, State};

pub(crate) async fn run(_: DeleteOldRecords, state: Data<State>) -> Result<(), JobError> {
    let now = state.clock.now();
    loop {
        let mut tx = state.database.begin().await?;
        let given_up = payment_links::give_up_without_job(&mut tx, now).await?;
        tx.commit().await?;
        if given_up == 0 {
            break;
        }
    }
    loop {
        let mut conn = state.database.acquire().await?;
        let more = maintenance::delete_batch(&mut conn, &state.config.record_retention, now).await?;
        conn.commit().await?;
        if !more {
            return Ok(());
        }
    }
}
