//! Compacts the analytics counters.

use apalis::prelude::Data;
use common::{analytics, jobs::RollUpDays};

use crate::{JobError, State};

pub(crate) async fn run(_: RollUpDays, state: Data<State>) -> Result<(), JobError> {
    let mut conn = state.database.acquire().await?;
    let folded = analytics::fold(&mut conn).await?;
    conn.commit().await?;
    tracing::info!(rows = folded, "rolled up days");
    Ok(())
}
