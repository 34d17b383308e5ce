//! `show map`: which maps there are.
//!
//! ```text
//! # id (file) description
//! 0 (/d/maps/hosts.map) pattern loaded from file '/d/maps/hosts.map' used by map at … curr_ver=0 next_ver=0 entry_cnt=1
//! ```
//!
//! What lives here: identifier and file. What it must not know: which of them
//! are hapilot's (`runtime_api::maps`).

use nom::bytes::complete::{tag, take_until};
use nom::character::complete::{char, i64};
use nom::combinator::opt;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser as _};

use super::{ParseError, lines};

/// One map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedMap<'a> {
    /// HAProxy's number for it, -1 if it has none.
    pub id: i64,
    /// The file's path as it stands in the configuration; empty for a map
    /// without a file.
    pub file: &'a str,
    /// How many entries it has, where the version tells.
    pub entries: Option<u64>,
}

/// A path may hold blanks and brackets: what ends it is the text behind it.
fn listed(input: &str) -> IResult<&str, (i64, &str)> {
    let (input, id) = i64(input)?;
    let (input, file) =
        preceded(char(' '), delimited(char('('), take_until(") pattern loaded from "), char(')')))
            .parse(input)?;
    Ok((input, (id, file)))
}

fn entry_count(input: &str) -> IResult<&str, Option<u64>> {
    opt(preceded((take_until(" entry_cnt="), tag(" entry_cnt=")), nom::character::complete::u64)).parse(input)
}

/// Reads the list.
pub fn parse(reply: &str) -> Result<Vec<ListedMap<'_>>, ParseError> {
    let mut lines = lines(reply);
    match lines.next() {
        Some((_, line)) if line.starts_with("# id") => {}
        first => return Err(ParseError::new(1, "not a list of maps", first.map_or("", |(_, line)| line))),
    }
    lines
        .map(|(number, line)| {
            let (rest, (id, file)) =
                listed(line).map_err(|_| ParseError::new(number, "not a map with its file", line))?;
            let entries = entry_count(rest).ok().and_then(|(_, count)| count);
            Ok(ListedMap { id, file, entries })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_lists_its_maps() {
        for reply in [
            include_str!("../../../tests/data/show-map-listing-2.6.txt"),
            include_str!("../../../tests/data/show-map-listing-3.0.txt"),
            include_str!("../../../tests/data/show-map-listing-3.2.txt"),
            include_str!("../../../tests/data/show-map-listing-3.4.txt"),
        ] {
            let maps = parse(reply).unwrap();
            let mut files: Vec<&str> = maps.iter().map(|map| map.file).collect();
            files.sort_unstable();
            assert_eq!(files, ["/d/maps/hosts.map", "/d/maps/names.map"], "{reply}");
            assert!(maps.iter().all(|map| map.id >= 0));
            assert_eq!(maps.iter().filter_map(|map| map.entries).sum::<u64>(), 3, "{reply}");
        }
    }

    #[test]
    fn odd_paths_are_whole() {
        let reply = "# id (file) description\n-1 (/a (b) c) pattern loaded from file '/a' used by map\n\
                     2 () pattern loaded from configuration\n";
        let maps = parse(reply).unwrap();
        assert_eq!(maps[0], ListedMap { id: -1, file: "/a (b) c", entries: None });
        assert_eq!(maps[1].file, "");
    }

    #[test]
    fn no_map_at_all_is_a_list_and_an_error_text_is_not() {
        assert_eq!(parse("# id (file) description\n"), Ok(vec![]));
        assert!(parse("").is_err());
        assert!(parse("Unknown map identifier. Please use #<id> or <file>.\n").is_err());
        assert!(parse("# id (file) description\nsomething\n").is_err());
    }
}
