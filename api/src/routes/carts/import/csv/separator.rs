//! Finds the separator of a CSV file in its first line.

/// The separators that CSV may have. Spreadsheets use `;` where the comma separates decimals.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The first line of a file as it arrives.
#[derive(Debug, Default)]
pub(super) struct FirstLine {
    /// Length of what was scanned, in bytes.
    length: usize,
    place: Place,
    /// How often each separator occurs outside of quotes.
    counts: [usize; SEPARATORS.len()],
}

/// The place of the next byte.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    CellStart,
    Plain,
    Quoted,
    /// After the quote that may end the cell; another one does not.
    Closed,
}

impl FirstLine {
    /// Scans on in `buffer`, which begins with the line. The length of the line without its end;
    /// `None` until the line ends.
    pub(super) fn scan(&mut self, buffer: &[u8], at_end: bool) -> Option<usize> {
        for byte in &buffer[self.length..] {
            let separator = SEPARATORS.iter().position(|separator| separator == byte);
            self.place = match (self.place, byte, separator) {
                (Place::CellStart | Place::Closed, b'"', _) => Place::Quoted,
                (Place::Quoted, b'"', _) => Place::Closed,
                (Place::Quoted, ..) => Place::Quoted,
                (_, b'\n' | b'\r', _) => return Some(self.length),
                (_, _, Some(separator)) => {
                    self.counts[separator] += 1;
                    Place::CellStart
                }
                _ => Place::Plain,
            };
            self.length += 1;
        }
        at_end.then_some(self.length)
    }

    /// The separator that occurs most often; a comma if there is none.
    pub(super) fn separator(&self) -> u8 {
        let counts = SEPARATORS.into_iter().zip(self.counts);
        counts.rev().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| separator)
    }
}

/// The separator that a line such as `sep=;` names. Excel reads such a line before the header.
/// `None` if the line is another one.
pub(super) fn named_separator(line: &[u8]) -> Option<Result<u8, Unsupported>> {
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (name, separator) = line.split_at_checked(4)?;
    match (name.eq_ignore_ascii_case(b"sep="), separator) {
        (true, [separator]) => {
            Some(Some(*separator).filter(|separator| SEPARATORS.contains(separator)).ok_or(Unsupported))
        }
        _ => None,
    }
}

/// A separator that is none of [`SEPARATORS`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the first line, and its separator.
    fn scanned(file: &str) -> (usize, char) {
        let found = |size: usize| {
            let mut line = FirstLine::default();
            let lengths = (1..=file.len() / size).map(|pieces| pieces * size);
            let length = lengths.map(|length| line.scan(&file.as_bytes()[..length], false)).find_map(|length| length);
            (length.or_else(|| line.scan(file.as_bytes(), true)).unwrap(), char::from(line.separator()))
        };
        let whole = found(file.len().max(1));
        assert!((1..=file.len()).all(|size| found(size) == whole), "{file}");
        whole
    }

    #[test]
    fn the_most_frequent_separator_outside_of_quotes_counts() {
        assert_eq!(scanned("a,b,c\nd;e;f;g"), (5, ','));
        assert_eq!(scanned("a;b;c\r\nd,e,f"), (5, ';'));
        assert_eq!(scanned("a\tb;c\td"), (7, '\t'));
        assert_eq!(scanned("\"a,b,c,d\";e"), (11, ';'));
        assert_eq!(scanned("\"a\nb,\"\"c,\n\";e\nx"), (13, ';'));
        assert_eq!(scanned("a\"b,c\n\""), (5, ','));
        assert_eq!(scanned("a;b,c"), (5, ','), "as often: the comma");
        assert_eq!(scanned("a\n"), (1, ','));
        assert_eq!(scanned(""), (0, ','));
    }

    #[test]
    fn excel_names_the_separator() {
        for (line, separator) in [("sep=;", b';'), ("SEP=,", b','), ("\"sep=\t\"", b'\t')] {
            assert_eq!(named_separator(line.as_bytes()), Some(Ok(separator)), "{line}");
        }
        assert_eq!(named_separator(b"sep=|"), Some(Err(Unsupported)));
        for other in ["", "sep", "sep=", "sep=;;", "sep;a", "\"sep=;"] {
            assert_eq!(named_separator(other.as_bytes()), None, "{other}");
        }
    }
}
