//! Adds up the stored counts of carts, and indexes the texts by which carts are found.

use apalis::prelude::Data;
use common::{analytics, carts::search, jobs::RollUpDays};

use crate::{JobError, State};

pub(crate) async fn run(_: RollUpDays, state: Data<State>) -> Result<(), JobError> {
    let mut conn = state.database.acquire().await?;
    let deltas = analytics::add_up(&mut conn).await?;
    conn.commit().await?;
    if deltas > 0 {
        tracing::info!(deltas, "added up the counts of carts");
    }
    let mut carts = 0;
    loop {
        let mut tx = state.database.begin().await?;
        let indexed = search::index::index_changes(&mut tx).await?;
        tx.commit().await?;
        carts += indexed;
        if indexed == 0 {
            break;
        }
    }
    if carts > 0 {
        tracing::info!(carts, "indexed carts for searches");
    }
    Ok(())
}
