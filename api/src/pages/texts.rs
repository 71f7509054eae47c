//! The texts of the pages in every language. A missing translation does not compile.
//!
//! Shoppers are addressed formally where the language has a formal address. "The shop" is the
//! operator's; nothing names Stripe.

pub(super) mod checkout;
pub(super) mod ended;
pub(super) mod link;

use super::language::Language;

/// One text in every language of the pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    en: &'static str,
    de: &'static str,
    fr: &'static str,
    es: &'static str,
    it: &'static str,
    nl: &'static str,
    pt: &'static str,
    pl: &'static str,
    ja: &'static str,
    zh: &'static str,
    ar: &'static str,
}

impl Text {
    pub(super) fn within(self, language: Language) -> &'static str {
        match language {
            Language::English => self.en,
            Language::German => self.de,
            Language::French => self.fr,
            Language::Spanish => self.es,
            Language::Italian => self.it,
            Language::Dutch => self.nl,
            Language::Portuguese => self.pt,
            Language::Polish => self.pl,
            Language::Japanese => self.ja,
            Language::Chinese => self.zh,
            Language::Arabic => self.ar,
        }
    }
}

/// The link to the shop.
pub(super) const BACK: Text = Text {
    en: "Back to the shop",
    de: "Zurück zum Shop",
    fr: "Retour à la boutique",
    es: "Volver a la tienda",
    it: "Torna al negozio",
    nl: "Terug naar de winkel",
    pt: "Voltar à loja",
    pl: "Wróć do sklepu",
    ja: "ショップに戻る",
    zh: "返回商店",
    ar: "العودة إلى المتجر",
};
