//! The funnels that were counted in the last seconds.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use common::{
    analytics::{self, Funnel},
    db::Database,
    money::Currency,
};
use moka::future::Cache;

/// Open pages load themselves again with each change; counting takes a second or so for a million
/// links.
const LIFE: Duration = Duration::from_secs(15);
/// Periods that are remembered.
const PERIODS: u64 = 100;

/// A funnel, and when it was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) funnel: Funnel,
    pub(crate) at: DateTime<Utc>,
}

/// The first and the last day, and the currency.
type Key = (NaiveDate, NaiveDate, Currency);

/// Funnels of the days of one time zone. Each is counted once, however many pages ask for it.
#[derive(Debug)]
pub(crate) struct Funnels {
    database: Database,
    zone: Tz,
    counted: Cache<Key, Counted>,
}

impl Funnels {
    pub(crate) fn new(database: Database, zone: Tz) -> Self {
        Self { database, zone, counted: Cache::builder().max_capacity(PERIODS).time_to_live(LIFE).build() }
    }

    /// The funnel of a range of days; `None` if it could not be counted.
    pub(crate) async fn count(
        &self,
        (first, last): (NaiveDate, NaiveDate),
        currency: Currency,
        now: DateTime<Utc>,
    ) -> Option<Counted> {
        let count = async {
            let mut conn = self.database.acquire().await?;
            let funnel = analytics::funnel(&mut conn, (first, last), self.zone, currency).await?;
            Ok(Counted { funnel, at: now })
        };
        let counted: Result<_, Arc<sqlx::Error>> = self.counted.try_get_with((first, last, currency), count).await;
        counted.inspect_err(|error| tracing::warn!(%error, "the payment links of a period could not be counted")).ok()
    }
}
