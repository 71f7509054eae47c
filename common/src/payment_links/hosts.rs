//! The hosts that shoppers may be redirected to: Stripe's and configured ones.
//!
//! The address of a session comes from Stripe's response and is stored. Without this check, a fake
//! Stripe left in the configuration, or someone with write access to the table, could turn the
//! shop's links into redirects to any site.

use url::{Host, Url};

use crate::config::{list, value, web_address};

/// The hosts of Stripe's Checkout pages.
const STRIPE: [&str; 2] = ["checkout.stripe.com", "buy.stripe.com"];
/// The host of Stripe's API.
const STRIPE_API: &str = "api.stripe.com";

/// The hosts that shoppers may be redirected to: Stripe's, those of `CHECKOUT_HOSTS`, and the host of
/// `STRIPE_API_URL` if it is a fake Stripe.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckoutHosts {
    /// Further hosts that shoppers may be redirected to: your custom domain of Checkout
    #[arg(long = "checkout-hosts", env = "CHECKOUT_HOSTS", default_value = "", value_parser = list(domain))]
    #[arg(value_name = "hosts such as pay.shop.example, separated by commas")]
    custom: std::vec::Vec<String>,
    /// Address of the Stripe API; the api never calls it, but may redirect shoppers to a fake Stripe there
    #[arg(long, env, default_value = "https://api.stripe.com", value_parser = value(web_address))]
    #[arg(value_name = "an address such as https://api.stripe.com")]
    pub stripe_api_url: String,
}

fn domain(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let has_labels =
        |domain: &str| domain.split('.').all(|label| !label.is_empty() && label.trim_matches('-') == label);
    match Host::parse(text).ok()? {
        Host::Domain(domain) if domain == text && domain.bytes().all(plain) && has_labels(&domain) => Some(domain),
        _ => None,
    }
}

impl CheckoutHosts {
    /// The parsed address if shoppers may be redirected to it, else `None`.
    pub fn check(&self, address: &str) -> Option<Url> {
        let url = Url::parse(address).ok()?;
        // Reject `https://checkout.stripe.com@evil.example`; Stripe's addresses have no
        // credentials.
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let of_stripe = || {
            let known = |host| STRIPE.contains(&host) || self.custom.iter().any(|custom| custom == host);
            url.host_str().is_some_and(known) && url.scheme() == "https" && url.port().is_none()
        };
        let of_api = || {
            let api = Url::parse(&self.stripe_api_url).ok().filter(|api| api.host_str() != Some(STRIPE_API));
            api.is_some_and(|api| api.host() == url.host() && api.scheme() == url.scheme())
        };
        (of_stripe() || of_api() || is_this_machine(&url)).then_some(url)
    }
}

/// Whether the host is the machine of the person who opens the link. Allowed without configuration,
/// for a local fake Stripe: it can't redirect anyone to another site.
fn is_this_machine(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    local && matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn hosts(variables: &[(&str, &str)]) -> CheckoutHosts {
        Env::of(variables.iter().copied()).read().unwrap()
    }

    #[test]
    fn shoppers_are_sent_to_stripe_alone() {
        let plain = hosts(&[]);
        for good in [
            "https://checkout.stripe.com/c/pay/cs_live_1#fidkdWxOYHwnPyd1blppbHNgWjA0",
            "https://buy.stripe.com/x",
            "https://CHECKOUT.stripe.com:443/x",
            "http://127.0.0.1:12111/c/pay/cs_test_1",
            "http://localhost:12111/c/pay/cs_test_1",
        ] {
            assert!(plain.check(good).is_some(), "{good}");
        }
        for bad in [
            "https://evil.example/c/pay/cs_live_1",
            "http://checkout.stripe.com/c/pay/cs_live_1",
            "https://checkout.stripe.com.evil.example/",
            "https://evil.example/checkout.stripe.com",
            "https://checkout.stripe.com@evil.example/",
            "https://evil.example\\@checkout.stripe.com/",
            "https://user@checkout.stripe.com/",
            "https://checkout.stripe.com:8443/",
            "https://127.0.0.1.evil.example/",
            "//evil.example/",
            "/c/pay/1",
            "javascript:alert(1)//checkout.stripe.com",
            "data:text/html,checkout.stripe.com",
            "",
        ] {
            assert!(plain.check(bad).is_none(), "{bad}");
        }
        let location = plain.check("https://checkout.stripe.com/a\r\nset-cookie: x=1").unwrap();
        assert!(!location.as_str().contains(['\r', '\n']), "nothing is slipped into the header");
    }

    #[test]
    fn operators_name_their_own() {
        let named =
            hosts(&[("CHECKOUT_HOSTS", "pay.shop.example"), ("STRIPE_API_URL", "http://stripe.internal:12111")]);
        assert!(named.check("https://pay.shop.example/c/pay/cs_live_1").is_some());
        assert!(named.check("http://pay.shop.example/c/pay/cs_live_1").is_none());
        assert!(named.check("http://stripe.internal:12111/c/pay/cs_test_1").is_some());
        assert!(named.check("https://stripe.internal.evil.example/").is_none());
        for bad in ["https://pay.shop.example", "pay.shop.example/x", "*.shop.example", "10.0.0.1"] {
            let error = Env::of([("CHECKOUT_HOSTS", bad)]).read::<CheckoutHosts>().unwrap_err();
            assert!(error.to_string().starts_with("CHECKOUT_HOSTS is "), "{error}");
        }
    }
}
