//! `show version`: `3.0.11-1+deb13u3`, `3.5-dev5-f00c3a2`.
//!
//! What lives here: the number in front. What it must not know: what a version
//! can do (`core::command::Capabilities`).

use nom::character::complete::{char, digit1};
use nom::combinator::{map_res, opt};
use nom::sequence::preceded;
use nom::{IResult, Parser as _};

use super::ParseError;
use crate::core::command::Version;

fn number(input: &str) -> IResult<&str, u16> {
    map_res(digit1, str::parse).parse(input)
}

fn version(input: &str) -> IResult<&str, Version> {
    (number, preceded(char('.'), number), opt(preceded(char('.'), number)))
        .map(|(major, minor, patch)| Version { major, minor, patch: patch.unwrap_or(0) })
        .parse(input)
}

/// Reads the version; a development version has the patch level 0.
pub fn parse(reply: &str) -> Result<Version, ParseError> {
    let text = reply.trim();
    match version(text) {
        // `3.` or `3.0x` is no version; what follows a number is set off.
        Ok((rest, version)) if rest.is_empty() || rest.starts_with(['-', '+', ' ', '~']) => Ok(version),
        _ => Err(ParseError::new(1, "not a version", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_development_versions_are_read() {
        for (text, wanted) in [
            ("2.6.12-1+deb12u4\n", (2, 6, 12)),
            ("3.0.11-1+deb13u3\n", (3, 0, 11)),
            ("3.2.26-1\n", (3, 2, 26)),
            ("3.4.7-1\n", (3, 4, 7)),
            ("3.5-dev5-f00c3a2\n", (3, 5, 0)),
            ("3.4.0", (3, 4, 0)),
        ] {
            let version = parse(text).unwrap();
            assert_eq!((version.major, version.minor, version.patch), wanted, "{text}");
        }
    }

    #[test]
    fn other_texts_are_not() {
        for text in ["", "3", "3.", "3.x", "3.0x", "3.0.x", "v3.0", "99999.1.1", "Unknown command."] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
