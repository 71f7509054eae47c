//! Decodes the body of an import to UTF-8 as it arrives.

use axum::http::{HeaderMap, header};
use bytes::{BufMut, BytesMut};

use crate::http::error::ApiError;

/// Written in place of what can't be decoded. No UTF-8 text contains this byte, so its line is
/// refused.
const UNDECODABLE: u8 = 0xff;

/// Refuses a `charset` other than UTF-8 and UTF-16. The byte order mark decides between the two.
///
/// # Errors
/// 415 if the charset is another one.
pub(super) fn check_charset(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    for (_, charset) in parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset")) {
        let charset = charset.trim().trim_matches('"').to_ascii_lowercase();
        if !matches!(charset.replace(['-', '_'], "").as_str(), "utf8" | "utf16" | "utf16le" | "utf16be") {
            return Err(ApiError::unsupported_media_type(
                "The charset must be utf-8, or utf-16 with a byte order mark: save the file as UTF-8",
            ));
        }
    }
    Ok(())
}

/// The encoding that the byte order mark names; UTF-8 if there is none.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    Utf8,
    /// UTF-16, with the function that reads one unit.
    Utf16(fn([u8; 2]) -> u16),
}

const MARKS: [(&[u8], Encoding); 3] = [
    (b"\xef\xbb\xbf", Encoding::Utf8),
    (b"\xff\xfe", Encoding::Utf16(u16::from_le_bytes)),
    (b"\xfe\xff", Encoding::Utf16(u16::from_be_bytes)),
];

/// Decodes a text that arrives in pieces, and removes its byte order mark.
#[derive(Debug, Default)]
pub(super) struct TextDecoder {
    /// `None` until enough bytes have arrived to tell.
    encoding: Option<Encoding>,
    /// The beginning of a byte order mark or of a character: at most 3 bytes.
    rest: Vec<u8>,
}

impl TextDecoder {
    /// Appends the text of the next piece to `out`.
    pub(super) fn decode(&mut self, piece: &[u8], out: &mut BytesMut) {
        if self.rest.is_empty() {
            self.decode_joined(piece, out);
        } else {
            let joined = [&std::mem::take(&mut self.rest), piece].concat();
            self.decode_joined(&joined, out);
        }
    }

    fn decode_joined(&mut self, mut piece: &[u8], out: &mut BytesMut) {
        let encoding = match self.encoding {
            Some(encoding) => encoding,
            None if MARKS.iter().any(|(mark, _)| piece.len() < mark.len() && mark.starts_with(piece)) => {
                self.rest = piece.to_vec();
                return;
            }
            None => {
                let marked = MARKS.iter().find(|(mark, _)| piece.starts_with(mark));
                let (mark, encoding) = marked.copied().unwrap_or((b"", Encoding::Utf8));
                piece = &piece[mark.len()..];
                *self.encoding.insert(encoding)
            }
        };
        match encoding {
            Encoding::Utf8 => out.extend_from_slice(piece),
            Encoding::Utf16(unit) => self.rest = decode_utf16(piece, unit, out).to_vec(),
        }
    }

    /// Appends what is left at the end of the body.
    pub(super) fn end(&mut self, out: &mut BytesMut) {
        let rest = std::mem::take(&mut self.rest);
        match self.encoding {
            Some(Encoding::Utf16(_)) if !rest.is_empty() => out.put_u8(UNDECODABLE),
            _ => out.extend_from_slice(&rest),
        }
    }
}

/// Appends the characters to `out`, and returns the beginning of a character at the end.
fn decode_utf16<'p>(piece: &'p [u8], unit: fn([u8; 2]) -> u16, out: &mut BytesMut) -> &'p [u8] {
    let (pairs, _) = piece.as_chunks::<2>();
    let pairs = match pairs.split_last() {
        // The other half of a surrogate pair is still to come.
        Some((last, before)) if matches!(unit(*last), 0xd800..0xdc00) => before,
        _ => pairs,
    };
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match character {
            Ok(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(_) => out.put_u8(UNDECODABLE),
        }
    }
    &piece[2 * pairs.len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body` in pieces of `size` bytes.
    fn decoded(body: &[u8], size: usize) -> Vec<u8> {
        let (mut decoder, mut out) = (TextDecoder::default(), BytesMut::new());
        for piece in body.chunks(size) {
            decoder.decode(piece, &mut out);
            assert!(decoder.rest.len() <= 3);
        }
        decoder.end(&mut out);
        decoder.end(&mut out);
        out.to_vec()
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn the_byte_order_mark_names_the_encoding() {
        let text = "a;é€😀\r\n\u{feff}z";
        let marked = format!("\u{feff}{text}");
        let (le, be) = (utf16(&marked, u16::to_le_bytes), utf16(&marked, u16::to_be_bytes));
        for body in [text.as_bytes(), marked.as_bytes(), &le, &be] {
            for size in 1..=body.len() {
                assert_eq!(decoded(body, size), text.as_bytes(), "{body:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_marked() {
        let le = |units: &[u16], odd: &[u8]| -> Vec<u8> {
            let units = [0xfeff].iter().chain(units).flat_map(|unit| unit.to_le_bytes());
            units.chain(odd.iter().copied()).collect()
        };
        for (body, text) in [
            (le(&[0xd83d], b""), &b"\xff"[..]),
            (le(&[0xd83d, 0xd83d, 0xde00], b""), b"\xff\xf0\x9f\x98\x80"),
            (le(&[0xde00, 0x41], b""), b"\xffA"),
            (le(&[0x41], b"B"), b"A\xff"),
            (le(&[0x41, 0xd83d], b"B"), b"A\xff"),
            (le(&[], b""), b""),
            (b"\xef\xbb".to_vec(), b"\xef\xbb"),
            (b"\xff".to_vec(), b"\xff"),
            (b"\xef\xbb\xff".to_vec(), b"\xef\xbb\xff"),
        ] {
            for size in 1..=body.len().max(1) {
                assert_eq!(decoded(&body, size), text, "{body:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn charsets_in_every_spelling() {
        let check = |content_type: &str| {
            check_charset(&HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])).is_ok()
        };
        for accepted in [
            "text/csv",
            "text/csv; charset=utf-8",
            "text/csv;charset=\"UTF-8\"; header=present",
            "text/csv; Charset = utf8",
            "text/csv; charset=utf_16",
            "text/csv; charset=UTF-16LE",
            "text/csv; x=charset",
        ] {
            assert!(check(accepted), "{accepted}");
        }
        for refused in [
            "text/csv; charset=iso-8859-1",
            "text/csv; charset=\"windows-1252\"",
            "text/csv; charset=",
            "text/csv; charset=utf-8; charset=latin1",
            "application/x-ndjson; charset=utf-32",
            "text/csv; charset=utf-7",
        ] {
            assert!(!check(refused), "{refused}");
        }
    }
}
