//! Tables with a header of column names, separated by one blank.
//!
//! What lives here: header and rows. What it must not know: which columns there
//! are.

use nom::bytes::complete::{tag, take_till};
use nom::character::complete::char;
use nom::combinator::all_consuming;
use nom::multi::separated_list1;
use nom::sequence::preceded;
use nom::{IResult, Parser as _};

use super::ParseError;

/// A word, possibly empty: HAProxy prints nothing for some values.
fn word(input: &str) -> IResult<&str, &str> {
    take_till(|c| c == ' ').parse(input)
}

fn words(input: &str) -> IResult<&str, Vec<&str>> {
    all_consuming(separated_list1(char(' '), word)).parse(input)
}

fn header_words(input: &str) -> IResult<&str, Vec<&str>> {
    all_consuming(preceded(tag("# "), separated_list1(char(' '), word))).parse(input)
}

/// The names of a table's columns.
pub(super) struct Header<'a> {
    names: Vec<&'a str>,
    line: (usize, &'a str),
}

impl<'a> Header<'a> {
    /// Reads `# name name …`.
    pub(super) fn read(line: (usize, &'a str)) -> Result<Self, ParseError> {
        match header_words(line.1) {
            Ok((_, names)) => Ok(Self { names, line }),
            Err(_) => Err(ParseError::new(line.0, "not a header", line.1)),
        }
    }

    /// The place of a column.
    pub(super) fn place(&self, name: &str, reason: &'static str) -> Result<usize, ParseError> {
        self.names
            .iter()
            .position(|&column| column == name)
            .ok_or_else(|| ParseError::new(self.line.0, reason, self.line.1))
    }
}

/// One line of a table.
pub(super) struct Row<'a> {
    words: Vec<&'a str>,
    line: (usize, &'a str),
}

impl<'a> Row<'a> {
    /// Splits a line. Trailing columns may be missing: 2.6 prints fewer for
    /// servers without idle connections.
    pub(super) fn read(line: (usize, &'a str)) -> Result<Self, ParseError> {
        match words(line.1.trim_end()) {
            Ok((_, words)) => Ok(Self { words, line }),
            Err(_) => Err(ParseError::new(line.0, "not a row", line.1)),
        }
    }

    /// The text in a column.
    pub(super) fn text(&self, place: usize) -> Result<&'a str, ParseError> {
        self.words
            .get(place)
            .copied()
            .ok_or_else(|| ParseError::new(self.line.0, "the row is too short", self.line.1))
    }

    /// The number in a column.
    pub(super) fn number<N: std::str::FromStr>(&self, place: usize) -> Result<N, ParseError> {
        self.text(place)?
            .parse()
            .map_err(|_| ParseError::new(self.line.0, "not a number, or out of range", self.line.1))
    }

    /// An error about this row.
    pub(super) fn error(&self, reason: &'static str) -> ParseError {
        ParseError::new(self.line.0, reason, self.line.1)
    }
}
