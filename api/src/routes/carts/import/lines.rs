//! Splits the bytes of an import into lines as they arrive.

use axum::http::HeaderMap;
use bytes::BytesMut;
use common::json;
use tokio_util::codec::{AnyDelimiterCodec, Decoder};
use utoipa::ToSchema;

use super::{
    csv::Records,
    line::{LINE_BYTES, Line},
    text::{TextDecoder, check_charset},
};
use crate::http::{body, error::ApiError};

/// Format of an import or export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One JSON object per line.
    Ndjson,
    /// A header that names the columns, then one record per cart (in an import also per item).
    Csv,
}

impl Format {
    /// The format that `Content-Type` names. Line-delimited JSON has no registered media type, so
    /// several common ones are accepted.
    pub(crate) fn of_body(headers: &HeaderMap) -> Result<Self, ApiError> {
        body::check_encoding(headers)?;
        check_charset(headers)?;
        body::media_type(headers).and_then(|media_type| Self::named(&media_type)).ok_or_else(|| {
            ApiError::unsupported_media_type(
                "The body must be lines of JSON or CSV: send content-type: application/x-ndjson or text/csv",
            )
        })
    }

    /// The format of a media type without its parameters; `None` if it is not supported.
    pub(crate) fn named(media_type: &str) -> Option<Self> {
        let (kind, name) = media_type.split_once('/')?;
        if !matches!(kind, "application" | "text") {
            return None;
        }
        match name.trim_start_matches("x-").replace('-', "").as_str() {
            "ndjson" | "jsonl" | "jsonlines" | "ldjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Splits a body into its lines. Holds no more than one line and the last piece of the body.
#[derive(Debug)]
pub(crate) struct Lines {
    decoder: TextDecoder,
    buffer: BytesMut,
    splitter: Splitter,
}

#[derive(Debug)]
enum Splitter {
    Ndjson { codec: AnyDelimiterCodec, number: u64 },
    Csv(Box<Records>),
}

impl Lines {
    pub(crate) fn new(format: Format) -> Self {
        let splitter = match format {
            Format::Ndjson => {
                let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), LINE_BYTES);
                Splitter::Ndjson { codec, number: 0 }
            }
            Format::Csv => Splitter::Csv(Box::new(Records::new())),
        };
        Self { decoder: TextDecoder::default(), buffer: BytesMut::new(), splitter }
    }

    /// Makes unknown columns of CSV an error.
    pub(crate) fn refuse_unknown_columns(&mut self) {
        if let Splitter::Csv(records) = &mut self.splitter {
            records.refuse_unknown_columns();
        }
    }

    /// Appends the next piece of the body.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.decoder.decode(piece, &mut self.buffer);
    }

    /// The next line; `None` until more of the body is fed. Empty lines are counted and skipped.
    ///
    /// # Errors
    /// 400 or 422 if the header of CSV is missing or invalid.
    pub(crate) fn next(&mut self, at_end: bool) -> Result<Option<Line>, ApiError> {
        if at_end {
            self.decoder.end(&mut self.buffer);
        }
        match &mut self.splitter {
            Splitter::Ndjson { codec, number } => Ok(next_json(codec, number, &mut self.buffer, at_end)),
            Splitter::Csv(records) => records.next(&mut self.buffer, at_end),
        }
    }
}

fn next_json(codec: &mut AnyDelimiterCodec, number: &mut u64, buffer: &mut BytesMut, at_end: bool) -> Option<Line> {
    loop {
        let found = if at_end { codec.decode_eof(buffer) } else { codec.decode(buffer) };
        let line = found.transpose()?;
        *number += 1;
        // The line is too long; decoding from memory has no other error.
        let Ok(line) = line else {
            return Some(Line::new(*number, LINE_BYTES, Err(ApiError::line_too_long())));
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let content = json::parse(&line)
            .map_err(|error| ApiError::bad_request(format!("The line is not well-formed JSON: {error}")));
        return Some(Line::new(*number, line.len(), content));
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Line numbers and contents; fed in pieces of every size.
    fn read(format: Format, body: &[u8]) -> Vec<(u64, Option<Value>)> {
        let in_pieces = |size: usize| {
            let mut lines = Lines::new(format);
            let mut read = Vec::new();
            for piece in body.chunks(size) {
                lines.feed(piece);
                while let Some(line) = lines.next(false).unwrap() {
                    read.push((line.number, line.content.ok().map(|json| serde_json::from_str(json.get()).unwrap())));
                }
            }
            while let Some(line) = lines.next(true).unwrap() {
                read.push((line.number, line.content.ok().map(|json| serde_json::from_str(json.get()).unwrap())));
            }
            read
        };
        let whole = in_pieces(body.len().max(1));
        for size in 1..10 {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn lines_of_json_are_numbered_with_the_empty_ones() {
        let body = b"\xef\xbb\xbf{\"a\":1}\r\n\n  \r\n{\"a\":\n7\n\"\xff\"\nnull";
        let numbers: Vec<(u64, bool)> =
            read(Format::Ndjson, body).iter().map(|(number, value)| (*number, value.is_some())).collect();
        assert_eq!(numbers, [(1, true), (4, false), (5, true), (6, false), (7, true)]);
        assert!(read(Format::Ndjson, b"").is_empty());
    }

    #[test]
    fn records_of_csv_are_numbered_as_rows_of_a_spreadsheet() {
        let body = b"\xef\xbb\xbf\"customerEmail\",items,customerName,unknownFieldOfATest\r\n\
            a@example.com,\"[{\"\"name\"\":\"\"a, b\"\"}]\",\"two\r\nlines\",red\r\n\
            \r\n\
            ,,,\n\
            b@example.com,[],\"say \"\"hi\"\"\",\n\
            c@example.com,[],too,many,cells\n\
            d@example.com,[],d,";
        let read = read(Format::Csv, body);
        let numbers: Vec<u64> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 5, 6, 7]);
        let first = read[0].1.as_ref().unwrap();
        assert_eq!(first["items"][0]["name"], "a, b");
        assert_eq!(first["customerName"], "two\r\nlines");
        assert_eq!(first.get("unknownFieldOfATest"), None);
        assert_eq!(read[1].1.as_ref().unwrap()["customerName"], "say \"hi\"");
        assert!(read[2].1.is_none() && read[3].1.is_some());
    }

    #[test]
    fn a_line_that_is_too_long_is_that_lines_error() {
        let long = "x".repeat(LINE_BYTES + 1);
        let cell = "x".repeat(LINE_BYTES);
        let json = format!("1\n{long}\n2\n{}", " ".repeat(LINE_BYTES));
        let csv = format!("customerEmail,customerName,items\na,{cell},[]\n\"{cell}\n{cell}\",b,[]\na,b,[]\n");
        for (format, body, numbers) in [
            (Format::Ndjson, json, vec![(1, true), (2, false), (3, true)]),
            (Format::Csv, csv, vec![(2, false), (3, false), (4, true)]),
        ] {
            let mut lines = Lines::new(format);
            let mut read = Vec::new();
            for piece in body.as_bytes().chunks(100_000) {
                lines.feed(piece);
                while let Some(line) = lines.next(false).unwrap() {
                    read.push((line.number, line.content.is_ok()));
                }
                assert!(lines.buffer.len() <= LINE_BYTES + 100_000);
            }
            assert!(lines.next(true).unwrap().is_none());
            assert_eq!(read, numbers);
        }
    }

    #[test]
    fn media_types_that_are_in_use() {
        for name in ["application/x-ndjson", "application/jsonl", "application/json-lines", "application/x-jsonlines"] {
            assert_eq!(Format::named(name), Some(Format::Ndjson));
        }
        assert_eq!(Format::named("text/csv"), Some(Format::Csv));
        for name in ["application/json", "text/plain", "multipart/form-data", "csv", ""] {
            assert_eq!(Format::named(name), None);
        }
    }
}
