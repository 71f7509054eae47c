//! The events of a cart in order, with their reasons.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::timeline::{Event, TimelinePage};
use maud::{Markup, html};

use super::format;

/// Maximum number of events shown; few carts have more.
pub(crate) const LIMIT: i64 = 100;

/// The timeline, with the moment when the shopper left the cart among the events.
pub(crate) fn section(abandoned_at: DateTime<Utc>, timeline: &TimelinePage, zone: Tz) -> Markup {
    let left = timeline.events.iter().position(|event| event.at >= abandoned_at).unwrap_or(timeline.events.len());
    let (before, after) = timeline.events.split_at(left);
    html! {
        section.card aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            ol.timeline {
                @for event in before { (line(event, zone)) }
                li { span { "Cart abandoned" } (format::moment(abandoned_at, zone)) }
                @for event in after { (line(event, zone)) }
            }
            @if timeline.next.is_some() { p.muted.small { "The first " (LIMIT) " events; the API has the rest." } }
        }
    }
}

fn line(event: &Event, zone: Tz) -> Markup {
    html! { li { span { (event.summary) } (format::moment(event.at, zone)) } }
}
