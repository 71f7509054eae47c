//! Small edits of a text.

use proptest::{prelude::*, sample::Index, sample::select};

/// Text that often breaks parsers: range limits, special characters, zero-width characters.
const PIECES: [&str; 40] = [
    "\0", "\n", "\r\n", "\t", " ", "\u{feff}", "\u{a0}", "\u{2028}", "\u{202e}", "\u{301}", "é", "😀", "\"", "\"\"",
    "'", "\\", "\\u0000", "\\ud800", ",", ";", ":", "=", "&", "+", "-", "@", ".", "/", "%", "%00", "%ff", "*", "{",
    "}", "[", "]", "null", "1e400", "-0", "W/",
];

/// Numbers at range limits.
const NUMBERS: [&str; 16] = [
    "0",
    "00",
    "1",
    "-1",
    "100",
    "101",
    "255",
    "256",
    "10000",
    "10001",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "0.1000000000000000055",
];

#[derive(Debug, Clone)]
enum Edit {
    /// Removes these characters.
    Remove(Index, usize),
    /// Inserts this text.
    Insert(Index, String),
    /// Replaces this character.
    Replace(Index, char),
    /// Repeats these characters.
    Repeat(Index, usize, usize),
    /// Continues like another seed from here on.
    GoOnLike(Index, Index, Index),
    /// Replaces the number here.
    Number(Index, &'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let piece = prop_oneof![
        5 => select(&PIECES[..]).prop_map(str::to_owned),
        2 => select(&NUMBERS[..]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        3 => (at(), 1..12_usize).prop_map(|(place, length)| Edit::Remove(place, length)),
        5 => (at(), piece).prop_map(|(place, piece)| Edit::Insert(place, piece)),
        2 => (at(), any::<char>()).prop_map(|(place, with)| Edit::Replace(place, with)),
        2 => (at(), prop::char::range(' ', '~')).prop_map(|(place, with)| Edit::Replace(place, with)),
        1 => (at(), 1..8_usize, 1..60_usize).prop_map(|(place, length, times)| Edit::Repeat(place, length, times)),
        1 => (at(), at(), at()).prop_map(|(place, seed, from)| Edit::GoOnLike(place, seed, from)),
        3 => (at(), select(&NUMBERS[..])).prop_map(|(place, number)| Edit::Number(place, number)),
    ]
}

/// A seed after zero to five edits.
pub(crate) fn edited(seeds: Vec<String>) -> impl Strategy<Value = Vec<char>> {
    let seeds: Vec<Vec<char>> = seeds.iter().map(|seed| seed.chars().collect()).collect();
    (select(seeds.clone()), proptest::collection::vec(edit(), 0..6)).prop_map(move |(mut text, edits)| {
        for edit in edits {
            apply(&mut text, &edit, &seeds);
        }
        text
    })
}

fn apply(text: &mut Vec<char>, edit: &Edit, seeds: &[Vec<char>]) {
    let length = text.len();
    match edit {
        Edit::Insert(place, piece) => {
            let place = place.index(length + 1);
            text.splice(place..place, piece.chars());
        }
        Edit::GoOnLike(place, seed, from) => {
            let other = seed.get(seeds);
            text.truncate(place.index(length + 1));
            text.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        _ if length == 0 => {}
        Edit::Remove(place, characters) => {
            let begin = place.index(length);
            text.drain(begin..length.min(begin + characters));
        }
        Edit::Replace(place, with) => *place.get_mut(text) = *with,
        Edit::Repeat(place, characters, times) => {
            let begin = place.index(length);
            let part = text[begin..length.min(begin + characters)].repeat(*times);
            text.splice(begin..begin, part);
        }
        Edit::Number(place, number) => {
            let begin = place.index(length);
            let is_digit = |place: &usize| text[*place].is_ascii_digit();
            let Some(begin) = (begin..length).find(is_digit) else { return };
            let end = (begin..length).find(|place| !is_digit(place)).unwrap_or(length);
            text.splice(begin..end, number.chars());
        }
    }
}
