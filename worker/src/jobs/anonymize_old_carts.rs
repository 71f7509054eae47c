//! Removes personal data from carts that ended longer ago than `RETAIN_PERSONAL_DATA`.

use apalis::prelude::Data;
use chrono::{DateTime, TimeDelta};
use common::{jobs::AnonymizeOldCarts, personal_data};

use crate::{JobError, State};

pub(crate) async fn run(_: AnonymizeOldCarts, state: Data<State>) -> Result<(), JobError> {
    let Some(retention) = state.config.retain_personal_data else { return Ok(()) };
    let now = state.clock.now();
    let age = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
    let before = now.checked_sub_signed(age).unwrap_or(DateTime::UNIX_EPOCH);
    let end = personal_data::blocks(&mut state.database.acquire().await?).await?;
    let mut carts = 0;
    let mut from = 0;
    // Updated rows may move to other blocks, where they no longer match.
    while from < end {
        let stretch = from..end.min(from + personal_data::BLOCKS);
        let mut tx = state.database.begin().await?;
        let (anonymized, more) = personal_data::anonymize_batch(&mut tx, &stretch, before, now).await?;
        tx.commit().await?;
        carts += anonymized;
        if !more {
            from = stretch.end;
        }
    }
    if carts > 0 {
        tracing::info!(carts, "anonymized old carts");
    }
    Ok(())
}
