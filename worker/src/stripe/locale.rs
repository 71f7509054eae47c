//! The language of Stripe's page.

use common::locale::Locale;
use stripe_shared::CheckoutSessionLocale;

/// The closest of the languages of Stripe's page
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-locale>). `None`
/// if it has none: without the parameter, the page is in the browser's language.
pub(crate) fn checkout_locale(locale: &Locale) -> Option<CheckoutSessionLocale> {
    use CheckoutSessionLocale as Of;
    let region = locale.region();
    Some(match locale.language() {
        "bg" => Of::Bg,
        "cs" => Of::Cs,
        "da" => Of::Da,
        "de" => Of::De,
        "el" => Of::El,
        "en" if region == Some("GB") => Of::EnMinusGb,
        "en" => Of::En,
        // Spain and its neighbours, Equatorial Guinea, the Philippines; all others are in America.
        "es" if matches!(region, None | Some("ES" | "AD" | "EA" | "GI" | "GQ" | "IC" | "PH")) => Of::Es,
        "es" => Of::EsMinus419,
        "et" => Of::Et,
        "fi" => Of::Fi,
        "fil" | "tl" => Of::Fil,
        "fr" if region == Some("CA") => Of::FrMinusCa,
        "fr" => Of::Fr,
        "hr" => Of::Hr,
        "hu" => Of::Hu,
        "id" | "in" => Of::Id,
        "it" => Of::It,
        "ja" => Of::Ja,
        "ko" => Of::Ko,
        "lt" => Of::Lt,
        "lv" => Of::Lv,
        "ms" => Of::Ms,
        "mt" => Of::Mt,
        "nb" | "nn" | "no" => Of::Nb,
        "nl" => Of::Nl,
        "pl" => Of::Pl,
        "pt" if region == Some("BR") => Of::PtMinusBr,
        "pt" => Of::Pt,
        "ro" | "mo" => Of::Ro,
        "ru" => Of::Ru,
        "sk" => Of::Sk,
        "sl" => Of::Sl,
        "sv" => Of::Sv,
        "th" => Of::Th,
        "tr" => Of::Tr,
        "vi" => Of::Vi,
        "zh" | "cmn" | "yue" => chinese(locale),
        _ => return None,
    })
}

/// The script decides between simplified and traditional; without one, the region does.
fn chinese(locale: &Locale) -> CheckoutSessionLocale {
    match (locale.script(), locale.region()) {
        (Some("Hans"), _) => CheckoutSessionLocale::Zh,
        (_, Some("HK" | "MO")) => CheckoutSessionLocale::ZhMinusHk,
        (Some("Hant"), _) | (_, Some("TW")) => CheckoutSessionLocale::ZhMinusTw,
        _ => CheckoutSessionLocale::Zh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_language_is_chosen() {
        for (tag, value) in [
            ("de-AT", Some("de")),
            ("de_DE_formal", Some("de")),
            ("en-AU", Some("en")),
            ("en-GB", Some("en-GB")),
            ("es", Some("es")),
            ("es-ES", Some("es")),
            ("es-MX", Some("es-419")),
            ("es-419", Some("es-419")),
            ("fr-CA", Some("fr-CA")),
            ("fr-BE", Some("fr")),
            ("pt_BR", Some("pt-BR")),
            ("pt-AO", Some("pt")),
            ("nn-NO", Some("nb")),
            ("no", Some("nb")),
            ("tl", Some("fil")),
            ("fil-PH", Some("fil")),
            ("zh", Some("zh")),
            ("zh-Hans-CN", Some("zh")),
            ("zh-Hans-HK", Some("zh")),
            ("zh-Hant-HK", Some("zh-HK")),
            ("zh-HK", Some("zh-HK")),
            ("zh-TW", Some("zh-TW")),
            ("zh-Hant", Some("zh-TW")),
            ("ar", None),
            ("he-IL", None),
            ("und", None),
        ] {
            let locale = tag.parse().unwrap();
            assert_eq!(checkout_locale(&locale).as_ref().map(CheckoutSessionLocale::as_str), value, "{tag}");
        }
    }
}
