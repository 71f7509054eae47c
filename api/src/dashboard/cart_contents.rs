//! The contents of a cart: its lines, adjustments, sums and metadata.

use std::borrow::Cow;

use common::{
    carts::{
        Cart,
        items::{Item, stored_adjustments, stored_items},
    },
    json::{self, Fields},
    money::{Currency, grouped},
};
use maud::{Markup, html};

use super::format;

/// Lines that are visible at once; the others unfold.
const SHOWN: usize = 50;

/// The lines, the adjustments and the sums.
pub(crate) fn items(cart: &Cart) -> Markup {
    html! {
        section.card aria-labelledby="items" {
            h2 #items { "Items" }
            // An operator may have stored anything by SQL.
            @match stored_items(&cart.items, cart.currency) {
                Some(items) => (lines(&items, cart.currency)),
                None => p.problem { "The stored items are not readable. The API returns them as they are." },
            }
            (sums(cart))
        }
    }
}

fn lines(items: &[Item], currency: Currency) -> Markup {
    let (first, others) = items.split_at(items.len().min(SHOWN));
    html! {
        (table("The items of the cart", first, currency))
        @if !others.is_empty() {
            details {
                summary { (others.len()) " more" }
                div.scroll tabindex="0" role="region" aria-label="More items" {
                    (table("The other items of the cart", others, currency))
                }
            }
        }
    }
}

fn table(caption: &str, items: &[Item], currency: Currency) -> Markup {
    html! {
        table {
            caption.visually-hidden { (caption) }
            thead { tr {
                th scope="col" { "Item" } th.number.wide-only scope="col" { "Quantity" }
                th.number.wide-only scope="col" { "Price" } th.number scope="col" { "Total" }
            } }
            tbody { @for item in items { (line(item, currency)) } }
        }
    }
}

fn line(item: &Item, currency: Currency) -> Markup {
    let (quantity, price) = (grouped(&item.quantity.to_string()), grouped(&item.price.to_string()));
    let total = item.minor(currency).map(|minor| format::amount(currency.amount(minor)));
    html! { tr {
        th scope="row" {
            @match &item.url {
                Some(url) => a href=(url) rel="noreferrer" { bdi { (item.name) } },
                None => bdi { (item.name) },
            }
            div.parts.muted.small {
                span.narrow-only { (quantity) " × " (price) }
                @if let Some(sku) = &item.sku { span { "SKU " bdi { (sku) } } }
                // Only a link: the page loads nothing from other sites.
                @if let Some(url) = &item.image_url {
                    a href=(url) rel="noreferrer" aria-label={ "Picture of " (item.name) } { "Picture" }
                }
            }
        }
        td.number.wide-only { (quantity) } td.number.wide-only { (price) }
        td.number { (total.unwrap_or_default()) }
    } }
}

fn sums(cart: &Cart) -> Markup {
    html! {
        dl.sums {
            @match stored_adjustments(&cart.adjustments, cart.currency) {
                Some(adjustments) => @for adjustment in adjustments {
                    dt { bdi { (adjustment.name) } } dd { (format::signed_money(adjustment.amount, cart.currency)) }
                },
                None => { dt.problem { "The stored adjustments are not readable." } dd {} },
            }
            dt { strong { "Total" } } dd { strong { (format::money(cart.total_value, cart.currency)) } }
            @if let Some(paid) = cart.paid_value { dt { "Paid through Stripe" } dd { (format::money(paid, cart.currency)) } }
            @if let Some(refunded) = cart.refunded_value { dt { "Refunded" } dd { (format::money(refunded, cart.currency)) } }
        }
    }
}

/// The shop's own data; nothing if there is none.
pub(crate) fn metadata(cart: &Cart) -> Markup {
    let metadata = Fields::of(&cart.metadata);
    let pairs: Vec<_> = metadata.iter().flat_map(Fields::iter).collect();
    html! {
        @if !pairs.is_empty() {
            section.card aria-labelledby="metadata" {
                h2 #metadata { "Metadata" }
                dl.details { @for (name, value) in pairs {
                    dt { bdi { (name) } }
                    dd { bdi { (json::text(value).unwrap_or(Cow::Borrowed(value.get()))) } }
                } }
            }
        }
    }
}
