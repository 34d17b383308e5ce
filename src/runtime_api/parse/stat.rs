//! `show stat`: CSV whose columns differ in every version; texts in double
//! quotes may hold commas, doubled quotes and line feeds.
//!
//! What lives here: the load of each row. What it must not know: metrics.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while};
use nom::character::complete::{char, line_ending, multispace0};
use nom::combinator::{eof, map, recognize};
use nom::multi::{many0_count, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser as _};

use super::ParseError;

/// One row: a server, or a sum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat<'a> {
    /// `pxname`
    pub proxy: Cow<'a, str>,
    /// `svname`
    pub server: Cow<'a, str>,
    /// `qcur`: requests that wait for it.
    pub queued: u64,
    /// `scur`: sessions on it.
    pub sessions: u64,
    /// `status`, in HAProxy's words: `UP`, `MAINT`, `UP (UNPUB)`; empty without.
    pub status: Cow<'a, str>,
}

fn quoted(input: &str) -> IResult<&str, Cow<'_, str>> {
    let inside = recognize(many0_count(alt((tag("\"\""), recognize_plain))));
    map(delimited(char('"'), inside, char('"')), |text: &str| {
        if text.contains('"') { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) }
    })
    .parse(input)
}

/// At least one character that is no quote.
fn recognize_plain(input: &str) -> IResult<&str, &str> {
    nom::bytes::complete::take_till1(|c| c == '"').parse(input)
}

fn plain(input: &str) -> IResult<&str, Cow<'_, str>> {
    map(take_till(|c| matches!(c, ',' | '\n' | '\r' | '"')), Cow::Borrowed).parse(input)
}

fn record(input: &str) -> IResult<&str, Vec<Cow<'_, str>>> {
    terminated(separated_list1(char(','), alt((quoted, plain))), alt((line_ending, eof))).parse(input)
}

fn header(input: &str) -> IResult<&str, Vec<Cow<'_, str>>> {
    preceded((tag("#"), take_while(|c| c == ' ')), record).parse(input)
}

/// Reads the rows.
pub fn parse(reply: &str) -> Result<Vec<Stat<'_>>, ParseError> {
    let line_of = |rest: &str| {
        let before = reply.len() - rest.len();
        reply.get(..before).map_or(1, |text| text.matches('\n').count() + 1)
    };
    let (mut rest, names) = header(reply).map_err(|_| ParseError::new(1, "not a header", reply))?;
    let place = |name: &str| {
        names
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| ParseError::new(1, "a needed column is missing", reply))
    };
    let (proxy, server) = (place("pxname")?, place("svname")?);
    let (queued, sessions) = (place("qcur")?, place("scur")?);
    let condition = place("status").ok();
    let mut stats = Vec::new();
    loop {
        (rest, _) = multispace0::<_, nom::error::Error<&str>>(rest)
            .map_err(|_| ParseError::new(line_of(rest), "not a row", rest))?;
        if rest.is_empty() {
            return Ok(stats);
        }
        let (next, mut row) = record(rest).map_err(|_| ParseError::new(line_of(rest), "not a row", rest))?;
        let short = || ParseError::new(line_of(rest), "the row is too short", rest);
        let number = |row: &[Cow<'_, str>], place: usize| {
            let text = row.get(place).ok_or_else(short)?;
            // Empty where the row has no such count.
            if text.is_empty() {
                return Ok(0);
            }
            text.parse().map_err(|_| ParseError::new(line_of(rest), "not a number", rest))
        };
        let (queued, sessions) = (number(&row, queued)?, number(&row, sessions)?);
        let mut text = |place: usize| row.get_mut(place).map(std::mem::take).ok_or_else(short);
        let words = condition.map_or(Ok(Cow::default()), &mut text)?;
        stats.push(Stat { proxy: text(proxy)?, server: text(server)?, queued, sessions, status: words });
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_shows_its_load() {
        for reply in [
            include_str!("../../../tests/data/show-stat-2.6.txt"),
            include_str!("../../../tests/data/show-stat-3.0.txt"),
            include_str!("../../../tests/data/show-stat-3.2.txt"),
            include_str!("../../../tests/data/show-stat-3.4.txt"),
        ] {
            let stats = parse(reply).unwrap();
            let short: Vec<_> = stats.iter().map(|s| (&*s.proxy, &*s.server, s.queued, s.sessions)).collect();
            assert_eq!(
                short,
                [
                    ("web:pool:0001", "shop-1", 0, 1),
                    ("web:pool:0001", "shop-2", 0, 0),
                    ("web:pool:0001", "shop-3", 0, 0),
                ],
                "{reply}"
            );
        }
    }

    #[test]
    fn quoted_texts_hide_nothing() {
        let reply = "# last_chk,pxname,qcur,scur,svname,\n\"a,b \"\"c\"\"\nd\",p,1,2,\"s,\"\"1\",\n,p,,3,BACKEND,\n\n";
        let stats = parse(reply).unwrap();
        assert_eq!(stats[1].status, "");
        let unpublished =
            parse("# pxname,svname,qcur,scur,status,\nweb:a,BACKEND,0,0,UP (UNPUB),\n").unwrap();
        assert_eq!(unpublished[0].status, "UP (UNPUB)");
        assert_eq!(stats.len(), 2);
        assert_eq!((&*stats[0].server, stats[0].queued, stats[0].sessions), ("s,\"1", 1, 2));
        assert_eq!((&*stats[1].server, stats[1].queued, stats[1].sessions), ("BACKEND", 0, 3));
    }

    #[test]
    fn a_foreign_or_half_text_is_refused() {
        assert!(parse("No such proxy.\n").is_err());
        assert!(parse("").is_err());
        assert!(parse("# pxname,svname,scur,\n").is_err(), "a column is missing");
        let error = parse("# pxname,svname,qcur,scur,\na,b,1,2,\na,b\n").unwrap_err();
        assert_eq!((error.line, error.reason), (3, "the row is too short"));
        assert!(parse("# pxname,svname,qcur,scur,\na,\"b,1,2\n").is_err(), "an open quote");
        assert!(parse("# pxname,svname,qcur,scur,\na,b,x,2\n").is_err());
    }
}
