//! What happened to a cart, in its order.

use chrono::{DateTime, Utc};
use common::carts::Cart;
use maud::{Markup, html};

use super::format;

/// What the cart itself knows: when it was left, stored, paid, given up. A
/// record of each change, with its why, has its place here.
pub(crate) fn timeline_of(cart: &Cart) -> Markup {
    let events = [
        (Some(cart.abandoned_at), "Left behind by the shopper"),
        (Some(cart.created_at), "Stored here"),
        (cart.expired_at, "Expired"),
        (cart.recovered_at, "Recovered"),
    ];
    let mut events: Vec<(DateTime<Utc>, &str)> =
        events.into_iter().filter_map(|(at, what)| at.map(|at| (at, what))).collect();
    events.sort_by_key(|(at, _)| *at);
    html! {
        section.card aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            ol.timeline { @for (at, what) in events { li { span { (what) } (format::instant(at)) } } }
        }
    }
}
