//! Redacts Stripe's error messages, which may quote the request, before they are stored, logged or
//! returned.

use common::payment_links::checkout::CheckoutCart;
use queue::ERROR_CHARACTERS;

/// Shorter names of items and adjustments are not redacted: they match parts of ordinary words, and identify nobody.
const SHORTEST_TELLING_NAME: usize = 4;
/// Characters of a name that are looked for in a message.
const NAME_BEGINNING: usize = 200;
/// Number of hexadecimal digits of a recovery token.
const TOKEN_DIGITS: usize = 32;

/// Removes control characters, the secret key, the cart's e-mail address, recovery token and names
/// of items and adjustments, and anything that looks like an address, a token or a key. Truncates to
/// [`ERROR_CHARACTERS`].
///
/// `cart` is `None` if the cart is not known to the caller.
pub(crate) fn redact(message: &str, key: &str, cart: Option<&CheckoutCart>) -> String {
    let mut text: String = message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let sent_email = cart.and_then(CheckoutCart::sent_email);
    let of_cart = cart.into_iter().flat_map(|cart| {
        let items = cart.items.iter().flatten().map(|item| item.name.as_str());
        let names = items.chain(cart.adjustments.iter().flatten().map(|adjustment| adjustment.name.as_str()));
        // Stripe knows long names by their beginning only.
        let names = names.map(|name| name.char_indices().nth(NAME_BEGINNING).map_or(name, |(end, _)| &name[..end]));
        let names = names.chain(cart.external_id.as_deref()).filter(|name| name.len() >= SHORTEST_TELLING_NAME);
        [cart.customer_email.as_str(), cart.recovery_token.as_str()].into_iter().chain(names)
    });
    for secret in [key].into_iter().chain(sent_email.as_deref()).chain(of_cart).filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "…");
    }
    // Truncated last, because a truncated secret would not be found.
    without_addresses_and_keys(&without_tokens(&text)).chars().take(ERROR_CHARACTERS).collect()
}

/// Redacts every word with an `@`, whatever the form of the address, and every word that begins like
/// a key, of which Stripe repeats the end.
fn without_addresses_and_keys(message: &str) -> String {
    let is_address = |word: &str| word.contains('@') || word.contains("%40");
    let is_key = |word: &str| {
        let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        ["sk_", "rk_"].iter().any(|prefix| word.starts_with(prefix))
    };
    let words = message.split(' ').map(|word| if is_address(word) || is_key(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Redacts every run of hexadecimal digits that is at least as long as a recovery token.
fn without_tokens(message: &str) -> String {
    let is_digit = |char: char| char.is_ascii_hexdigit();
    let runs = message.split_inclusive(|char| !is_digit(char)).map(|part| {
        let run = part.trim_end_matches(|char| !is_digit(char)).len();
        if run < TOKEN_DIGITS { part.to_owned() } else { format!("…{}", &part[run..]) }
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use common::{
        carts::{CartStatus, items::Item},
        money::Currency,
        payment_links::Expected,
    };

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn cart() -> CheckoutCart {
        let item = |name: &str| Item {
            name: name.to_owned(),
            quantity: "1".parse().unwrap(),
            price: "1".parse().unwrap(),
            total: None,
            sku: None,
            url: None,
            image_url: None,
        };
        CheckoutCart {
            customer_email: "\"ada l\"@example.com".to_owned(),
            items: Some(vec![item("Mug for Ada"), item("a")]),
            adjustments: Some(Vec::new()),
            total_minor: 200,
            external_id: None,
            locale: None,
            currency: Currency::USD,
            status: CartStatus::Abandoned,
            recovery_token: "token by hand".to_owned(),
            expected: Expected::default(),
        }
    }

    #[test]
    fn messages_tell_nothing_of_the_shopper() {
        let text = "Invalid address: \"ada l\"@example.com (Ada@Example.com, ada%40x) for 'Mug for Ada' a day";
        assert_eq!(redact(text, "sk_1", Some(&cart())), "Invalid address: … … … for '…' a day");
        let cart = CheckoutCart { customer_email: "\"ada l\"@exämple.com".to_owned(), ..cart() };
        let sent = "Invalid address: \"ada l\"@xn--exmple-cua.com";
        assert_eq!(redact(sent, "sk_1", Some(&cart)), "Invalid address: …");
    }

    #[test]
    fn addresses_and_tokens_are_redacted_without_the_cart() {
        let text =
            format!("No such customer: ada@example.com at /pay/{TOKEN}/thanks, %2Fpay%2F{}", TOKEN.to_uppercase());
        assert_eq!(redact(&text, "sk_1", None), "No such customer: … at /pay/…/thanks, %2Fpay%…");
    }

    #[test]
    fn messages_tell_neither_the_key_nor_the_token() {
        let text = format!("Bearer sk_live_1, https://shop.example/pay/{TOKEN}/thanks or token by hand");
        let told = redact(&text, "sk_live_1", Some(&cart()));
        assert_eq!(told, "Bearer …, https://shop.example/pay/…/thanks or …");
        let masked = "The provided key 'rk_test_****1234' lacks 'rak_checkout_session_write'";
        assert_eq!(redact(masked, "sk_1", None), "The provided key … lacks 'rak_checkout_session_write'");
    }

    #[test]
    fn messages_can_be_stored() {
        assert_eq!(redact("nul\0here\n", "sk_1", None), "nul here ");
        let long = redact(&"é".repeat(3_000_000), "sk_1", None);
        assert_eq!(long, "é".repeat(ERROR_CHARACTERS));
    }
}
