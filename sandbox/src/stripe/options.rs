//! The parameters of new sessions that say what Stripe's page collects and offers, by
//! <https://docs.stripe.com/api/checkout/sessions/create>.

use serde::{Deserialize, Serialize};

use super::{form::Parameters, refusal::Refusal};

/// The countries of `shipping_address_collection[allowed_countries]`, by Stripe's OpenAPI
/// specification: all but AS, CX, CC, CU, HM, IR, KP, MH, FM, NF, MP, PW, SY, UM and VI.
const COUNTRIES: &[&str] = &[
    "AC", "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AT", "AU", "AW", "AX", "AZ", "BA", "BB", "BD",
    "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY", "BZ", "CA",
    "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CV", "CW", "CY", "CZ", "DE", "DJ", "DK", "DM",
    "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FO", "FR", "GA", "GB", "GD", "GE", "GF",
    "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HN", "HR", "HT", "HU",
    "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IS", "IT", "JE", "JM", "JO", "JP", "KE", "KG", "KH", "KI", "KM", "KN",
    "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME",
    "MF", "MG", "MK", "ML", "MM", "MN", "MO", "MQ", "MR", "MS", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC",
    "NE", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ", "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN",
    "PR", "PS", "PT", "PY", "QA", "RE", "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ",
    "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST", "SV", "SX", "SZ", "TA", "TC", "TD", "TF", "TG", "TH", "TJ", "TK",
    "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VN",
    "VU", "WF", "WS", "XK", "YE", "YT", "ZA", "ZM", "ZW", "ZZ",
];

/// The data that a session's page collects from the shopper, and its offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// The countries of shipping addresses; empty: no address is collected.
    pub shipping_countries: Vec<String>,
    /// `auto` or `required`; `None`: `auto`.
    pub billing_address: Option<String>,
    /// Whether a telephone number is collected.
    pub phone: bool,
    /// Whether promotion codes can be entered.
    pub promotion_codes: bool,
    /// Whether Stripe Tax computes taxes.
    pub automatic_tax: bool,
}

/// Reads the parameters, and removes them from those that are left to read.
pub(super) fn options(unread: &mut Parameters) -> Result<SessionOptions, Refusal> {
    Ok(SessionOptions {
        shipping_countries: shipping_countries(unread)?,
        billing_address: billing_address(unread)?,
        phone: boolean(unread, "phone_number_collection[enabled]")?,
        promotion_codes: boolean(unread, "allow_promotion_codes")?,
        automatic_tax: boolean(unread, "automatic_tax[enabled]")?,
    })
}

fn shipping_countries(unread: &mut Parameters) -> Result<Vec<String>, Refusal> {
    const NAME: &str = "shipping_address_collection[allowed_countries]";
    let mut countries = Vec::new();
    while let Some(country) = unread.remove(&format!("{NAME}[{}]", countries.len())) {
        if !COUNTRIES.contains(&country.as_str()) {
            let message = format!("Invalid {NAME}: must be one of {}", COUNTRIES.join(", "));
            return Err(Refusal::invalid(message).about(format!("{NAME}[{}]", countries.len())));
        }
        countries.push(country);
    }
    Ok(countries)
}

fn billing_address(unread: &mut Parameters) -> Result<Option<String>, Refusal> {
    const NAME: &str = "billing_address_collection";
    match unread.remove(NAME) {
        Some(when) if when != "auto" && when != "required" => {
            Err(Refusal::invalid(format!("Invalid {NAME}: must be one of auto or required")).about(NAME))
        }
        when => Ok(when),
    }
}

fn boolean(unread: &mut Parameters, name: &str) -> Result<bool, Refusal> {
    match unread.remove(name).as_deref() {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(other) => Err(Refusal::invalid(format!("Invalid boolean: {other}")).about(name)),
    }
}
