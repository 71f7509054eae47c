//! Escapes text that a spreadsheet would take for a formula, and restores it.
//!
//! A spreadsheet that is set to another separator than the file's, such as `;`, begins cells in the
//! middle of ours. So an apostrophe goes before every formula at the beginning of a cell, or after
//! a character that may begin a cell. If apostrophes stand there already, one more is added, and
//! one is removed.

use std::{borrow::Cow, fmt::Write};

/// Characters that begin a formula; some spreadsheets accept the full-width forms as well.
pub(super) const BEGINS_FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// Characters after which a cell may begin.
const BEGINS_CELL: [char; 7] = [';', ',', '|', '\t', '\r', '\n', '"'];

/// Adds an apostrophe before each formula.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    changed(text, |out, apostrophes| {
        out.push('\'');
        out.push_str(apostrophes);
    })
}

/// Removes the apostrophes that [`escaped`] added.
pub(super) fn restored(text: &str) -> Cow<'_, str> {
    changed(text, |out, apostrophes| out.push_str(apostrophes.get(1..).unwrap_or_default()))
}

/// Replaces the apostrophes before each formula with what `write` appends.
fn changed(text: &str, write: impl Fn(&mut String, &str)) -> Cow<'_, str> {
    if !text.contains(BEGINS_FORMULA) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for cell in text.split_inclusive(BEGINS_CELL) {
        let formula = cell.trim_start_matches('\'');
        if formula.starts_with(BEGINS_FORMULA) {
            write(&mut out, &cell[..cell.len() - formula.len()]);
            out.push_str(formula);
        } else {
            out.push_str(cell);
        }
    }
    out.into()
}

/// Equivalent JSON in which a character that begins a formula is written as `\u…` at the beginning
/// of a string, and after `;` or `|`. (JSON escapes tabs and line breaks in strings, and outside of
/// strings none of these characters follows `;`, `|` or `"`.)
pub(super) fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(BEGINS_FORMULA) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    let mut before = ' ';
    for c in json.chars() {
        if matches!(before, ';' | '|' | '"') && BEGINS_FORMULA.contains(&c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c)); // writing into a String can't fail
        } else {
            out.push(c);
        }
        before = c;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_leave_with_an_apostrophe_and_come_back_without() {
        for (typed, written) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-x", "'-x"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1＋1", "'＝1＋1"),
            ("＠x", "'＠x"),
            ("'=1", "''=1"),
            ("''-1", "'''-1"),
            ("'t Hooft", "'t Hooft"),
            ("'", "'"),
            ("x=1", "x=1"),
            ("x;=1+cmd|' /C calc'!A0", "x;'=1+cmd|' /C calc'!A0"),
            ("x;'=1;;+2", "x;''=1;;'+2"),
            ("x\t@a\n-b\r=c", "x\t'@a\n'-b\r'=c"),
            ("a\"=1", "a\"'=1"),
            ("Smith-Jones; 2 = 1 + 1", "Smith-Jones; 2 = 1 + 1"),
        ] {
            assert_eq!(escaped(typed), written);
            assert_eq!(restored(written), typed);
        }
        assert_eq!(restored("=1+1;-2"), "=1+1;-2", "a file that is not ours");
    }

    #[test]
    fn json_means_the_same() {
        let json = r#"[{"name":"=1","price":-5,"x":"a;=1;\"+2＝","y":"x=1"},-1]"#;
        let escaped = escaped_json(json);
        let written = r#"[{"name":"\u003d1","price":-5,"x":"a;\u003d1;\"\u002b2＝","y":"x=1"},-1]"#;
        assert_eq!(escaped, written);
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&escaped), value(json));
    }
}
