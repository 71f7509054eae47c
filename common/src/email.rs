//! E-mail addresses: validation, the stored form, and the canonical form, by which two spellings of
//! one mailbox are recognized.

use email_address::Options;
use unicode_normalization::UnicodeNormalization;

/// A valid address as it is stored: trimmed, and in NFC unless only the original form is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// `None` if `text` is not an address that mail can be sent to.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let nfc: String = text.nfc().collect();
        // NFC can lengthen a text, perhaps beyond the limit.
        [nfc.as_str(), text].into_iter().find(|text| is_valid(text)).map(|text| Self(text.to_owned()))
    }

    /// The address as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical form; see [`canonical`].
    pub fn canonical(&self) -> String {
        canonical(&self.0)
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.0
    }
}

fn is_valid(text: &str) -> bool {
    let options = Options::default().with_required_tld().without_display_text().without_domain_literal();
    email_address::EmailAddress::parse_with_options(text, options).is_ok() && !text.contains('\0')
}

/// The form that all spellings of one mailbox share: the domain in ASCII and
/// lower case (UTS 46), the local part in NFC and Unicode lower case, without
/// white space around it and without quotes that it does not need.
///
/// Defined for any text, because rows written by other programs may hold anything.
/// Applying it twice changes nothing.
pub fn canonical(text: &str) -> String {
    match text.trim().rsplit_once('@') {
        Some((local, domain)) => {
            let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| lower_case(domain));
            // NFC first: only composed, a letter and its combining mark count as an atom.
            let local: String = local.nfc().collect();
            format!("{}@{domain}", lower_case(unquoted(&local)))
        }
        None => lower_case(text.trim()),
    }
}

/// Removes unnecessary quotes: `"ada"@example.com` is `ada@example.com` (RFC 5321, section 4.1.2).
fn unquoted(local: &str) -> &str {
    let content = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    content.filter(|content| content.split('.').all(is_atom)).unwrap_or(local)
}

fn is_atom(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
}

/// NFC and lower case. Both forms of the small sigma become σ, because the lower case of Σ depends
/// on the letters around it.
fn lower_case(text: &str) -> String {
    let lower = text.nfc().collect::<String>().to_lowercase();
    lower.replace('ς', "σ").nfc().collect()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_have_one_canonical_form() {
        for (canonical_form, spellings) in [
            ("ada@example.com", &["ada@example.com", " ADA@Example.COM\n", "\"ada\"@example.com"] as &[&str]),
            (
                "ada@xn--bcher-kva.example",
                &["ada@bücher.example", "ada@BU\u{308}CHER.example", "Ada@XN--BCHER-KVA.example"],
            ),
            ("jos\u{e9}@example.com", &["JOSÉ@example.com", "jose\u{301}@example.com", "\"jose\u{301}\"@example.com"]),
            ("i\u{307}nci@example.com", &["İnci@example.com", "I\u{307}nci@example.com"]),
            ("ılgaz@example.com", &["ılgaz@EXAMPLE.com"]),
            ("groß@xn--strae-oqa.example", &["groß@straße.example", "GROẞ@STRAẞE.example"]),
            ("οδοσ@example.com", &["ΟΔΟΣ@example.com", "οδος@example.com"]),
            ("\"ada lovelace\"@example.com", &["\"Ada Lovelace\"@example.com"]),
            ("k@example.com", &["\u{212a}@example.com", "K@ｅｘａｍｐｌｅ.com"]),
            ("\"\\\"a\\\"\"@example.com", &["\"\\\"A\\\"\"@example.com"]),
            ("nobody", &["Nobody "]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling), canonical_form, "{spelling}");
            }
        }
        for (one, other) in [
            ("ada@example.com", "ad.a@example.com"),
            ("groß@example.com", "gross@example.com"),
            ("ılgaz@example.com", "ilgaz@example.com"),
            ("\"a b\"@example.com", "ab@example.com"),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
    }

    #[test]
    fn an_address_is_stored_trimmed_and_in_nfc() {
        assert_eq!(EmailAddress::parse(" jose\u{301}@example.com ").unwrap().as_str(), "jos\u{e9}@example.com");
        assert_eq!(EmailAddress::parse("\"a b\"@example.com").unwrap().as_str(), "\"a b\"@example.com");
        for text in ["", "nobody", "a@b", "Ada <ada@example.com>", "a@[127.0.0.1]", "a b@example.com", "a@b\0.example"]
        {
            assert_eq!(EmailAddress::parse(text), None, "{text}");
        }
    }
}
