//! How far the carts abandoned in a period came: to a payment link, its opening, and a payment.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    analytics::{self, Funnel, Rate},
    money::Currency,
};
use maud::{Markup, html};
use moka::future::Cache;

use crate::{
    dashboard::{format, period::Period},
    state::AppState,
};

/// Open pages load themselves again with each change; counting takes a second or so for a million
/// links.
const LIFE: Duration = Duration::from_secs(15);
/// Periods that are remembered.
const PERIODS: u64 = 100;

/// A funnel, and when it was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    funnel: Funnel,
    at: DateTime<Utc>,
}

/// The funnels counted in the last seconds. Each is counted once, however many pages ask for it.
#[derive(Debug)]
pub(crate) struct Funnels(Cache<(Period, Currency), Counted>);

impl Default for Funnels {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(PERIODS).time_to_live(LIFE).build())
    }
}

impl Funnels {
    /// The funnel of a period; `None` if it could not be counted.
    pub(crate) async fn count(&self, state: &AppState, period: Period, currency: Currency) -> Option<Counted> {
        let count = async {
            let at = state.clock.now();
            let mut conn = state.database.acquire().await?;
            let days = (period.first, period.last);
            let funnel = analytics::funnel(&mut conn, days, state.config.time_zone, currency).await?;
            Ok(Counted { funnel, at })
        };
        let counted: Result<_, Arc<sqlx::Error>> = self.0.try_get_with((period, currency), count).await;
        counted.inspect_err(|error| tracing::warn!(%error, "the payment links of a period could not be counted")).ok()
    }
}

pub(super) fn show(counted: &Counted, abandoned: i64, zone: Tz) -> Markup {
    let Funnel { linked, opened, paid } = counted.funnel;
    let steps = [("Abandoned", abandoned), ("Payment link created", linked), ("Opened", opened), ("Paid", paid)];
    html! {
        section.card aria-labelledby="funnel" {
            h2 #funnel { "From abandoned to paid" }
            ol.funnel { @for (name, count) in steps {
                @let share = Rate::percent(count, abandoned);
                li {
                    span { (name) }
                    strong { (format::count(count)) }
                    span.muted { (share) "%" }
                    svg.bar aria-hidden="true" { rect width={ (share) "%" } height="100%" {} }
                }
            } }
            p.muted.small {
                "The carts abandoned in this period, counted at " (format::moment(counted.at, zone))
                ". Opened: the shopper went on from the page of the recovery link, or paid. Where the link leads "
                "straight to an open checkout, only payments count, because mail scanners follow it as well."
            }
        }
    }
}
