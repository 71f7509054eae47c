//! Money as people read it, with the currency's symbol.

use super::{Amount, Currency};

impl Currency {
    /// The amount with its symbol, as English texts write it: `$1,234.50`, `CA$10.00`, `¥98,000`,
    /// `KD 1.230`; with the code, `CHF 9.90`, if no symbol is well known. No two currencies have the
    /// same symbol.
    pub fn format(self, amount: Amount) -> String {
        let code = self.code().to_ascii_uppercase();
        let symbol = self.symbol().unwrap_or(&code);
        let gap = if symbol.ends_with(char::is_alphabetic) { " " } else { "" };
        let number = grouped(&amount.to_string());
        match number.strip_prefix(MINUS) {
            Some(number) => format!("{MINUS}{symbol}{gap}{number}"),
            None => format!("{symbol}{gap}{number}"),
        }
    }

    /// The symbol of the English locale of Unicode's CLDR, and a few more that are unambiguous.
    fn symbol(&self) -> Option<&'static str> {
        Some(match self.code() {
            "aud" => "A$",
            "bhd" => "BD",
            "brl" => "R$",
            "cad" => "CA$",
            "cny" => "CN¥",
            "crc" => "₡",
            "eur" => "€",
            "gbp" => "£",
            "ghs" => "GH₵",
            "hkd" => "HK$",
            "ils" => "₪",
            "inr" => "₹",
            "jod" => "JD",
            "jpy" => "¥",
            "krw" => "₩",
            "kwd" => "KD",
            "kzt" => "₸",
            "mnt" => "₮",
            "mxn" => "MX$",
            "ngn" => "₦",
            "nzd" => "NZ$",
            "php" => "₱",
            "pyg" => "₲",
            "rub" => "₽",
            "sgd" => "S$",
            "thb" => "฿",
            "try" => "₺",
            "twd" => "NT$",
            "uah" => "₴",
            "usd" => "$",
            "vnd" => "₫",
            "xcd" => "EC$",
            _ => return None,
        })
    }
}

const MINUS: char = '\u{2212}';

/// A number in decimal digits, with a comma between thousands and a typographic minus.
pub fn grouped(number: &str) -> String {
    let (whole, decimals) = number.find('.').map_or((number, ""), |point| number.split_at(point));
    let mut text = String::new();
    let digits = match whole.strip_prefix('-') {
        Some(digits) => {
            text.push(MINUS);
            digits
        }
        None => whole,
    };
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + decimals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            ["0", "999", "1000", "1234567.50", "-1000.00", "-100"].map(grouped).join(" "),
            "0 999 1,000 1,234,567.50 \u{2212}1,000.00 \u{2212}100"
        );
    }

    #[test]
    fn money_has_its_symbol_and_decimals() {
        for (code, minor, text) in [
            ("usd", 123_450, "$1,234.50"),
            ("eur", 9_490, "€94.90"),
            ("eur", -1_000, "\u{2212}€10.00"),
            ("jpy", 98_000, "¥98,000"),
            ("cny", 98_000, "CN¥980.00"),
            ("vnd", 12_990_000, "₫12,990,000"),
            ("idr", 850_000_000, "IDR 8,500,000.00"),
            ("kwd", 1_230, "KD 1.230"),
            ("cad", 1_000, "CA$10.00"),
            ("aud", 1_000, "A$10.00"),
            ("chf", -990, "\u{2212}CHF 9.90"),
            ("isk", 1_000, "ISK 1,000"),
        ] {
            let currency: Currency = code.parse().unwrap();
            assert_eq!(currency.format(currency.amount(minor)), text);
        }
    }

    #[test]
    fn a_symbol_means_one_currency() {
        let symbols: Vec<String> = super::super::properties::tender()
            .into_iter()
            .map(|currency| currency.symbol().map_or_else(|| currency.code().to_ascii_uppercase(), str::to_owned))
            .collect();
        let distinct: std::collections::HashSet<&String> = symbols.iter().collect();
        assert_eq!(distinct.len(), symbols.len());
    }
}
