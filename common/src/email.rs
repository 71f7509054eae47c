//! E-mail addresses: validation, the stored form, and the canonical form, by which two spellings of
//! one mailbox are recognized.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup as Group, UnicodeGeneralCategory};

/// Maximum octets of a stored address, and so its maximum characters (RFC 5321, erratum 1690).
pub const MAX_OCTETS: usize = 254;
/// Maximum octets before the `@` (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL_OCTETS: usize = 64;

/// A valid address as it is stored: trimmed, in NFC, the domain as it was sent.
///
/// - The local part has letters, digits, marks and symbols of any script and dots anywhere (Japanese
///   carriers issued addresses with consecutive and final dots), or is quoted (RFC 5322 and 6531).
/// - The domain is valid by UTS 46 and has at least two labels, of which the last is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// `None` if `text` is not an address that mail can be sent to.
    pub fn parse(text: &str) -> Option<Self> {
        let stored: String = text.trim().nfc().collect();
        let (local, domain) = stored.rsplit_once('@')?;
        let short = stored.len() <= MAX_OCTETS && local.len() <= MAX_LOCAL_OCTETS;
        let valid = short && (is_bare(local) || is_quoted(local)) && is_domain(domain);
        valid.then_some(Self(stored))
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

/// The form that all spellings of one mailbox share: the domain in ASCII and
/// lower case (UTS 46), the local part in NFC and Unicode lower case, without
/// white space around it and without quotes and backslashes that it does not need.
///
/// Defined for any text, because rows written by other programs may hold anything.
/// Applying it twice changes nothing.
pub fn canonical(text: &str) -> String {
    match text.trim().rsplit_once('@') {
        Some((local, domain)) => {
            let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| lower_case(domain));
            // NFC first: a combining mark belongs to the letter before it, not to an escape.
            let local: String = local.nfc().collect();
            format!("{}@{domain}", canonical_local(&local))
        }
        None => lower_case(text.trim()),
    }
}

/// The address with its domain in ASCII (UTS 46), for Stripe and mail servers, which may know no other
/// form. The local part is unchanged.
pub fn with_ascii_domain(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => {
            let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned());
            format!("{local}@{domain}")
        }
        None => address.to_owned(),
    }
}

/// `"ada"@example.com` and `"a\da"@example.com` are `ada@example.com` (RFC 5321, section 4.1.2).
fn canonical_local(local: &str) -> String {
    match unquoted(local).map(|content| lower_case(&content)) {
        None => lower_case(local),
        Some(content) if is_bare(&content) => content,
        Some(content) => format!("\"{}\"", content.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

/// The content of a quoted string; `None` if the text is no quoted string.
fn unquoted(local: &str) -> Option<String> {
    let content = local.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(content.len());
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '"' => return None,
            '\\' => characters.next()?,
            other => other,
        });
    }
    Some(text)
}

/// Whether the local part needs no quotes.
fn is_bare(local: &str) -> bool {
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(c);
    !local.is_empty() && local.chars().all(plain) && is_visible(local)
}

/// Whether the local part is a quoted string of visible characters and spaces.
fn is_quoted(local: &str) -> bool {
    let is_space = |c: char| c.general_category() == GeneralCategory::SpaceSeparator;
    unquoted(local).is_some_and(|content| content.split(is_space).all(is_visible))
}

fn is_domain(domain: &str) -> bool {
    let ascii =
        Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify);
    let last = ascii.as_deref().ok().and_then(|ascii| ascii.rsplit_once('.')).map(|(_, last)| last);
    is_visible(domain) && last.is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether every character is assigned and visible: no control or format character, no white space,
/// no blank. The joiners ZWNJ and ZWJ, which Persian, Indic scripts and emoji need, may stand
/// between visible characters outside ASCII, and the selectors of emoji after one.
fn is_visible(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    let joins = |at: usize| {
        let group = |c: &char| matches!(c.general_category_group(), Group::Letter | Group::Mark | Group::Symbol);
        characters.get(at).is_some_and(|c| !c.is_ascii() && group(c) && !is_blank(*c))
    };
    characters.iter().enumerate().all(|(at, c)| match c {
        '\u{200c}' | '\u{200d}' => at > 0 && joins(at - 1) && joins(at + 1),
        '\u{fe0e}' | '\u{fe0f}' => at > 0 && joins(at - 1),
        c => !matches!(c.general_category_group(), Group::Other | Group::Separator) && !is_blank(*c),
    })
}

/// Letters, marks and symbols that show nothing: those of Unicode's `Default_Ignorable_Code_Point`,
/// and the empty Braille pattern.
fn is_blank(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
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
mod tests;
