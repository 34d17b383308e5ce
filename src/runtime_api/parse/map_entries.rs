//! `show map F`: `0xREFERENCE KEY VALUE` lines, in the order in which they were
//! made. Of several under one key the first is in force.
//!
//! What lives here: the entries as they are, odd ones included. What it must
//! not know: which of them hapilot could have written (`observe`).

use nom::bytes::complete::{tag, take_till1};
use nom::character::complete::{char, hex_digit1};
use nom::combinator::{map_res, opt, rest};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser as _};

use super::{ParseError, lines};

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapEntry<'a> {
    /// Names this entry alone, until it is changed or removed.
    pub reference: u64,
    /// Up to the first blank.
    pub key: &'a str,
    /// The rest of the line; may be empty or hold blanks.
    pub value: &'a str,
}

fn reference(input: &str) -> IResult<&str, u64> {
    preceded(tag("0x"), map_res(hex_digit1, |digits| u64::from_str_radix(digits, 16))).parse(input)
}

fn entry(input: &str) -> IResult<&str, MapEntry<'_>> {
    (terminated(reference, char(' ')), take_till1(|c| c == ' '), opt(preceded(char(' '), rest)))
        .map(|(reference, key, value)| MapEntry { reference, key, value: value.unwrap_or_default() })
        .parse(input)
}

/// Reads the entries.
pub fn parse(reply: &str) -> Result<Vec<MapEntry<'_>>, ParseError> {
    lines(reply)
        .map(|(number, line)| match entry(line) {
            Ok((_, entry)) => Ok(entry),
            Err(_) => Err(ParseError::new(number, "not a map entry", line)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_shows_its_entries_in_their_order() {
        for reply in [
            include_str!("../../../tests/data/show-map-2.6.txt"),
            include_str!("../../../tests/data/show-map-3.0.txt"),
            include_str!("../../../tests/data/show-map-3.2.txt"),
            include_str!("../../../tests/data/show-map-3.4.txt"),
        ] {
            let entries = parse(reply).unwrap();
            let pairs: Vec<(&str, &str)> = entries.iter().map(|e| (e.key, e.value)).collect();
            assert_eq!(
                pairs,
                [("shop.example", "web:pool:0001"), ("*.wild.example", "x"), ("shop.example", "second")],
                "{reply}"
            );
            assert!(entries.iter().all(|entry| entry.reference > 0xffff));
        }
    }

    #[test]
    fn odd_entries_are_shown_as_they_are() {
        let entries = parse("0x1 a b c\n0x2 k \n0x3 k\n0xffffffffffffffff ^r[0-9]+\\.x$ be;x\n\n").unwrap();
        assert_eq!(
            entries,
            [
                MapEntry { reference: 1, key: "a", value: "b c" },
                MapEntry { reference: 2, key: "k", value: "" },
                MapEntry { reference: 3, key: "k", value: "" },
                MapEntry { reference: u64::MAX, key: "^r[0-9]+\\.x$", value: "be;x" },
            ]
        );
        assert_eq!(parse("\n"), Ok(vec![]));
    }

    #[test]
    fn an_error_text_is_no_map() {
        assert!(parse("Unknown map identifier. Please use #<id> or <file>.\n").is_err());
        assert!(parse("0xfffffffffffffffff a b\n").is_err());
    }
}
