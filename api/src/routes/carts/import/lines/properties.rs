//! The lines of an import do not depend on how the network splits its body.

use axum::http::header;
use proptest::prelude::*;

use super::*;

/// Number and length of each line, and its JSON or why it can't be read.
type Read = Vec<(u64, usize, Result<String, String>)>;

fn read(format: Format, pieces: &[&[u8]]) -> Result<Read, String> {
    let told = |error: ApiError| serde_json::to_string(&error.body()).expect("an error can be written");
    let mut lines = Lines::new(format);
    let mut read = Vec::new();
    let mut drain = |lines: &mut Lines, at_end| loop {
        match lines.next(at_end) {
            Ok(Some(line)) => {
                let unreadable = (!line.errors.is_empty()).then(|| ApiError::validation(line.errors));
                let content = line.content.and_then(|json| unreadable.map_or(Ok(json), Err));
                read.push((line.number, line.bytes, content.map(|json| json.get().to_owned()).map_err(told)));
            }
            Ok(None) => return Ok(()),
            Err(error) => return Err(told(error)),
        }
    };
    for piece in pieces {
        lines.feed(piece);
        drain(&mut lines, false)?;
        assert!(lines.buffer.len() <= LINE_BYTES, "{} bytes are held", lines.buffer.len());
    }
    drain(&mut lines, true)?;
    Ok(read)
}

fn hold(format: Format, body: &[u8], cuts: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    let whole = read(format, &[body]);
    prop_assert_eq!(&read(format, &fuzz::pieces(body, cuts)), &whole);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    prop_assert_eq!(&read(format, &bytes), &whole);
    if let Ok(lines) = &whole {
        prop_assert!(lines.is_sorted_by(|one, next| one.0 < next.0), "{lines:?}");
        // A character of two bytes in UTF-16 may have three in UTF-8.
        prop_assert!(lines.iter().map(|line| line.1).sum::<usize>() <= body.len() / 2 * 3 + 1);
    }
    Ok(())
}

/// Splits lines in the naive way.
fn by_hand(body: &[u8]) -> Vec<(u64, Option<String>)> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled.map(|(number, line)| (number, json::parse(line).ok().map(|json| json.get().to_owned()))).collect()
}

proptest! {
    #[test]
    fn lines_of_json_are_the_same_however_they_are_cut(body in fuzz::corpus!("ndjson").near_bytes(), cuts in fuzz::cuts()) {
        hold(Format::Ndjson, &body, &cuts)?;
        prop_assume!(!body.starts_with(b"\xff\xfe") && !body.starts_with(b"\xfe\xff"));
        let read = read(Format::Ndjson, &[&body]).expect("nothing is refused as a whole");
        let read: Vec<(u64, Option<String>)> = read.into_iter().map(|(number, _, value)| (number, value.ok())).collect();
        prop_assert_eq!(read, by_hand(&body));
    }

    #[test]
    fn records_are_the_same_however_they_are_cut(body in fuzz::corpus!("csv").near_bytes(), cuts in fuzz::cuts()) {
        hold(Format::Csv, &body, &cuts)?;
    }

    #[test]
    fn utf_16_is_read_like_utf_8(body in fuzz::corpus!("csv").near(), cuts in fuzz::cuts(), big_endian: bool) {
        let bytes = if big_endian { u16::to_be_bytes } else { u16::to_le_bytes };
        let encoded: Vec<u8> = std::iter::once(0xfeff).chain(body.encode_utf16()).flat_map(bytes).collect();
        prop_assert_eq!(
            read(Format::Csv, &fuzz::pieces(&encoded, &cuts)),
            read(Format::Csv, &[format!("\u{feff}{body}").as_bytes()])
        );
        hold(Format::Csv, &encoded, &cuts)?;
    }

    #[test]
    fn a_media_type_is_one_of_two_or_none(name in fuzz::corpus!("media_types").near_header()) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, name.parse().expect("a good header"))]);
        if let Ok(format) = Format::of_body(&headers) {
            let word = if format == Format::Csv { "csv" } else { "json" };
            prop_assert!(name.to_ascii_lowercase().replace('-', "").contains(word), "{name}");
        }
    }
}

#[test]
fn the_corpora_hold() {
    let everywhere = |format| move |text: &str| hold(format, text.as_bytes(), &[]);
    fuzz::corpus!("ndjson").replay(everywhere(Format::Ndjson));
    fuzz::corpus!("csv").replay(everywhere(Format::Csv));
}

/// Bodies of twice the maximum length of a line, filled with worst cases: no more than a line
/// is held in memory, and no line is longer than the maximum.
#[test]
fn long_lines_are_not_held() {
    let header = "customerEmail,customerName,items\n";
    for worst in ["[", "\"", "\"\"", ",", "{\"a\":", "\\", "\r", "\n", "\r\n", ",\n", "1,"] {
        let body = worst.repeat(2 * LINE_BYTES / worst.len());
        for (format, body) in [(Format::Ndjson, body.clone()), (Format::Csv, format!("{header}{body}"))] {
            let lines = read(format, &body.as_bytes().chunks(4096).collect::<Vec<_>>()).expect("a good header");
            let longest = lines.iter().filter_map(|line| line.2.as_ref().ok()).map(String::len).max();
            assert!(longest.is_none_or(|longest| longest <= LINE_BYTES), "{format:?} of {worst:?}: {longest:?}");
        }
    }
}
