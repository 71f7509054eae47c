//! Folds the ledger of counts.

use apalis::prelude::Data;
use common::{analytics, jobs::RollUpDays};

use crate::{JobError, State};

pub(crate) async fn run(_: RollUpDays, state: Data<State>) -> Result<(), JobError> {
    let folded = analytics::fold(&mut *state.pool.acquire().await?).await?;
    tracing::info!(rows = folded, "rolled up days");
    Ok(())
}
