//! `show servers conn`: how many connections each server has. Its columns
//! differ in every version, and so does the number of them in a row.
//!
//! What lives here: the connections in use. What it must not know: what they
//! mean for a deletion.

use super::table::{Header, Row};
use super::{ParseError, lines};

/// One server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerConnections<'a> {
    /// In front of the `/`.
    pub backend: &'a str,
    /// Behind the `/`.
    pub server: &'a str,
    /// `used_cur`: connections that carry a request now.
    pub used: u64,
}

/// Reads the servers.
pub fn parse(reply: &str) -> Result<Vec<ServerConnections<'_>>, ParseError> {
    let mut lines = lines(reply);
    let header = Header::read(lines.next().ok_or_else(|| ParseError::new(1, "the header is missing", ""))?)?;
    let name = header.place("bkname/svname", "the column of names is missing")?;
    let used = header.place("used_cur", "the column used_cur is missing")?;
    lines
        .map(|line| {
            let row = Row::read(line)?;
            let (backend, server) =
                row.text(name)?.split_once('/').ok_or_else(|| row.error("not BACKEND/SERVER"))?;
            // 3.x prints a counter that went below 0 for a moment as it is.
            let used = u64::try_from(row.number::<i64>(used)?).unwrap_or(0);
            Ok(ServerConnections { backend, server, used })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_shows_its_connections() {
        for reply in [
            include_str!("../../../tests/data/show-servers-conn-2.6.txt"),
            include_str!("../../../tests/data/show-servers-conn-3.0.txt"),
            include_str!("../../../tests/data/show-servers-conn-3.2.txt"),
            include_str!("../../../tests/data/show-servers-conn-3.4.txt"),
        ] {
            let servers = parse(reply).unwrap();
            let short: Vec<_> = servers.iter().map(|s| (s.server, s.used)).collect();
            assert_eq!(short, [("shop-1", 1), ("shop-2", 0), ("shop-3", 0)], "{reply}");
            assert!(servers.iter().all(|server| server.backend == "web:pool:0001"));
        }
    }

    #[test]
    fn a_foreign_text_is_refused() {
        assert!(parse("Can't find backend.\n").is_err());
        assert!(parse("").is_err());
        assert!(parse("# bkname/svname used_cur\nab 1\n").is_err());
        assert!(parse("# bkname/svname used_cur\na/b\n").is_err());
        assert!(parse("# bkname/svname used_cur\na/b x\n").is_err());
    }
}
