//! How far the carts abandoned in a period came: to a payment link, its opening, and a payment.

use chrono_tz::Tz;
use common::analytics::{Funnel, Rate};
use maud::{Markup, html};

use crate::dashboard::{format, funnels::Counted};

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
