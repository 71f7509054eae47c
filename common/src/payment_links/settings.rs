//! The settings of Checkout Sessions: what Stripe's page collects and offers, and how a payment is
//! described.

use clap::ArgAction;
use serde::{Deserialize, Serialize};
use strum::EnumString;

use crate::config::{list, parsed, text, value};

/// The countries that Stripe's page accepts for shipping
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-shipping_address_collection-allowed_countries>).
const COUNTRIES: &str = "AC AD AE AF AG AI AL AM AO AQ AR AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR \
     BS BT BV BW BY BZ CA CD CF CG CH CI CK CL CM CN CO CR CV CW CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
     FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IS IT JE JM JO \
     JP KE KG KH KI KM KN KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MK ML MM MN MO MQ MR MS MT MU \
     MV MW MX MY MZ NA NC NE NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PY QA RE RO RS RU RW SA SB \
     SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SZ TA TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG US \
     UY UZ VA VC VE VG VN VU WF WS XK YE YT ZA ZM ZW ZZ";
const ON_OFF: &str = "`on` or `off`";
/// The part of a description that is replaced by the shop's id of the cart, or by the cart's own.
const ORDER: &str = "{order}";
/// Maximum characters of `CHECKOUT_DESCRIPTION`.
const LONGEST_TEMPLATE: usize = 500;
/// Maximum characters of a description
/// (<https://docs.stripe.com/api/payment_intents/object#payment_intent_object-description>).
const LONGEST_DESCRIPTION: usize = 1_000;

/// When Stripe's page collects a billing address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, EnumString)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum BillingAddress {
    /// When the payment method or the tax needs it.
    #[default]
    Auto,
    /// Always.
    Required,
}

/// The settings of new sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckoutSettings {
    /// Countries that the shop ships to: Stripe's page collects an address in one of them
    #[arg(long = "checkout-shipping-countries", env = "CHECKOUT_SHIPPING_COUNTRIES", default_value = "")]
    #[arg(value_name = "ISO 3166 codes that Stripe knows, separated by commas, such as US,CA", value_parser = list(country))]
    pub shipping_countries: std::vec::Vec<String>,
    /// When Stripe's page collects a billing address; `auto`: when the payment needs it
    #[arg(long = "checkout-billing-address", env = "CHECKOUT_BILLING_ADDRESS", default_value = "auto")]
    #[arg(value_name = "`auto` or `required`", value_parser = parsed::<BillingAddress>)]
    pub billing_address: BillingAddress,
    /// Whether Stripe's page collects a telephone number
    #[arg(long = "checkout-phone", env = "CHECKOUT_PHONE", default_value = "off", value_name = ON_OFF)]
    #[arg(value_parser = value(on_off), action = ArgAction::Set)]
    pub phone: bool,
    /// Whether shoppers can enter promotion codes, which you create at Stripe
    #[arg(long = "checkout-promotion-codes", env = "CHECKOUT_PROMOTION_CODES", default_value = "off")]
    #[arg(value_name = ON_OFF, value_parser = value(on_off), action = ArgAction::Set)]
    pub promotion_codes: bool,
    /// Whether Stripe Tax computes taxes, and adds them to the cart's total
    #[arg(long = "checkout-automatic-tax", env = "CHECKOUT_AUTOMATIC_TAX", default_value = "off")]
    #[arg(value_name = ON_OFF, value_parser = value(on_off), action = ArgAction::Set)]
    pub automatic_tax: bool,
    /// Description of payments at Stripe; `{order}` is replaced by the cart's `externalId`, or its `id` if it has none
    #[arg(long = "checkout-description", env = "CHECKOUT_DESCRIPTION", default_value = "Cart {order}")]
    #[arg(value_name = "a text of at most 500 characters, with no braces but {order}")]
    #[arg(value_parser = text(is_description))]
    pub description: String,
}

/// The settings of one session. The first attempt stores them, and retries send the same, whatever
/// the settings are by then: another request under the same idempotency key would be refused
/// (<https://docs.stripe.com/api/idempotent_requests>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSettings {
    /// The settings of the worker that made the first attempt.
    #[serde(flatten)]
    pub checkout: CheckoutSettings,
    /// The base of the address that shoppers return to.
    pub public_url: String,
    /// Whether the shopper's address is left out, because Stripe refused it before.
    #[serde(default)]
    pub without_email: bool,
}

impl CheckoutSettings {
    /// The description of a payment for `order`.
    pub fn description(&self, order: &str) -> String {
        self.description.replace(ORDER, order).chars().take(LONGEST_DESCRIPTION).collect()
    }
}

impl SessionSettings {
    /// Whether Stripe may charge another total than the cart's: less with a promotion code, more with
    /// taxes. (The statements that read a link's expected amount have the same rule.)
    pub fn total_may_differ(&self) -> bool {
        self.checkout.promotion_codes || self.checkout.automatic_tax
    }
}

fn country(text: &str) -> Option<String> {
    let code = text.to_ascii_uppercase();
    COUNTRIES.split(' ').any(|known| known == code).then_some(code)
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn is_description(text: &str) -> bool {
    let unwanted = |c: char| c.is_control() || "{}\u{fffd}".contains(c);
    text.chars().count() <= LONGEST_TEMPLATE && !text.replace(ORDER, "").contains(unwanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    #[test]
    fn descriptions_name_the_order() {
        let of = |template: &str| {
            Env::of([("CHECKOUT_DESCRIPTION", template)]).read::<CheckoutSettings>().map(|it| it.description("7 {x}"))
        };
        assert_eq!(of("").unwrap(), "Cart 7 {x}");
        assert_eq!(of("Tea & Co: {order} ({order})").unwrap(), "Tea & Co: 7 {x} (7 {x})");
        assert_eq!(of("Tea").unwrap(), "Tea");
        assert_eq!(of(&"{order}".repeat(71)).unwrap().chars().count(), 5 * 71);
        let long = CheckoutSettings { description: "{order}".repeat(71), ..CheckoutSettings::default() };
        assert_eq!(long.description(&"é".repeat(200)), "é".repeat(1_000));
        for refused in ["{orders}", "{", "{order", "a\u{7}b", &"é".repeat(501)] {
            assert!(of(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn countries_are_codes_that_stripe_knows() {
        let of = |codes: &str| {
            Env::of([("CHECKOUT_SHIPPING_COUNTRIES", codes)]).read::<CheckoutSettings>().map(|it| it.shipping_countries)
        };
        assert_eq!(of("us, CA").unwrap(), ["US", "CA"]);
        // Countries that Stripe names as unsupported, and codes of none.
        for refused in
            ["AS", "CX", "CC", "CU", "HM", "IR", "KP", "MH", "FM", "NF", "MP", "PW", "SY", "UM", "VI", "UK", "USA"]
        {
            assert!(of(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn stored_settings_are_read_again() {
        let settings = SessionSettings {
            checkout: Env::default().read().unwrap(),
            public_url: "https://shop.example".to_owned(),
            without_email: false,
        };
        let stored = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<SessionSettings>(&stored).unwrap(), settings);
        assert!(!settings.total_may_differ());
        // A release may add settings that older requests lack.
        let old = r#"{"publicUrl": "https://shop.example", "promotionCodes": true, "unknown": 1}"#;
        assert!(serde_json::from_str::<SessionSettings>(old).unwrap().total_may_differ());
    }
}
