//! Adds up the stored counts of carts.

use apalis::prelude::Data;
use common::{analytics, jobs::RollUpDays};

use crate::{JobError, State};

pub(crate) async fn run(_: RollUpDays, state: Data<State>) -> Result<(), JobError> {
    let mut conn = state.database.acquire().await?;
    let deltas = analytics::add_up(&mut conn).await?;
    conn.commit().await?;
    if deltas > 0 {
        tracing::info!(deltas, "added up the counts of carts");
    }
    Ok(())
}
