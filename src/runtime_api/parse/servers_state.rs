//! `show servers state`: a `1`, a header, one line per server.
//!
//! What lives here: the columns that hapilot needs, as numbers and texts of
//! HAProxy. What it must not know: what the numbers mean for a plan
//! (`observe`).

use super::table::{Header, Row};
use super::{ParseError, lines};

/// The only form of this dump since HAProxy 1.6.
const FORMAT: &str = "1";

/// One server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerState<'a> {
    /// `be_name`
    pub backend: &'a str,
    /// `srv_name`
    pub server: &'a str,
    /// `srv_addr`: an IP address, `-`, or the path of a socket.
    pub address: &'a str,
    /// `srv_port`
    pub port: u16,
    /// `srv_op_state`: 0 stopped, 1 starting, 2 running, 3 stopping.
    pub operational: u8,
    /// `srv_admin_state`: bits, see management.txt.
    pub admin: u32,
    /// `srv_uweight`, 0 to 256.
    pub weight: u16,
    /// `srv_time_since_last_change`, seconds; never below 0.
    pub unchanged_s: u32,
    /// `srv_check_status`: which result the last check had.
    pub check_status: u32,
    /// `srv_check_state`: bits; 4 is that the check runs.
    pub check_state: u32,
}

/// Reads the servers.
pub fn parse(reply: &str) -> Result<Vec<ServerState<'_>>, ParseError> {
    let mut lines = lines(reply);
    match lines.next() {
        Some((_, FORMAT)) => {}
        first => {
            return Err(ParseError::new(1, "not a dump of format 1", first.map_or("", |(_, line)| line)));
        }
    }
    let header = Header::read(lines.next().ok_or_else(|| ParseError::new(2, "the header is missing", ""))?)?;
    let place = |name| header.place(name, "a needed column is missing");
    let (backend, server) = (place("be_name")?, place("srv_name")?);
    let (address, port) = (place("srv_addr")?, place("srv_port")?);
    let (operational, admin) = (place("srv_op_state")?, place("srv_admin_state")?);
    let (weight, since) = (place("srv_uweight")?, place("srv_time_since_last_change")?);
    let (check_status, check_state) = (place("srv_check_status")?, place("srv_check_state")?);
    lines
        .map(|line| {
            let row = Row::read(line)?;
            // The clock of the machine may have been set back.
            let unchanged = row.number::<i64>(since)?.max(0);
            Ok(ServerState {
                backend: row.text(backend)?,
                server: row.text(server)?,
                address: row.text(address)?,
                port: row.number(port)?,
                operational: row.number(operational)?,
                admin: row.number(admin)?,
                weight: row.number(weight)?,
                unchanged_s: u32::try_from(unchanged).unwrap_or(u32::MAX),
                check_status: row.number(check_status)?,
                check_state: row.number(check_state)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: [&str; 4] = [
        include_str!("../../../tests/data/show-servers-state-2.6.txt"),
        include_str!("../../../tests/data/show-servers-state-3.0.txt"),
        include_str!("../../../tests/data/show-servers-state-3.2.txt"),
        include_str!("../../../tests/data/show-servers-state-3.4.txt"),
    ];

    #[test]
    fn every_version_shows_its_servers() {
        for reply in RECORDED {
            let servers = parse(reply).unwrap();
            let short: Vec<_> =
                servers.iter().map(|s| (s.backend, s.server, s.address, s.port, s.admin, s.weight)).collect();
            assert_eq!(
                short,
                [
                    ("web:pool:0001", "shop-1", "127.0.0.1", 7001, 0, 1),
                    ("web:pool:0001", "shop-2", "127.0.0.1", 7002, 1, 256),
                    ("web:pool:0001", "shop-3", "fd00::5", 8080, 8, 0),
                    ("web:start", "c1", "127.0.0.1", 7001, 4, 1),
                ],
                "{reply}"
            );
            assert_eq!(servers[0].check_state & 4, 4, "enabled");
            assert_eq!(servers[1].check_state & 4, 0, "not enabled");
        }
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let reply = "1\n# srv_name x be_name srv_port srv_addr srv_op_state srv_admin_state srv_uweight \
                     srv_time_since_last_change srv_check_status srv_check_state\ns 9 b 80 - 2 0 5 -3 15 6\n";
        let servers = parse(reply).unwrap();
        assert_eq!(
            servers,
            [ServerState {
                backend: "b",
                server: "s",
                address: "-",
                port: 80,
                operational: 2,
                admin: 0,
                weight: 5,
                unchanged_s: 0,
                check_status: 15,
                check_state: 6,
            }]
        );
    }

    #[test]
    fn a_half_or_foreign_dump_is_refused_as_a_whole() {
        let reply = RECORDED[0];
        assert!(parse("Can't find backend.\n").is_err());
        assert!(parse("").is_err());
        assert!(parse("1\n").is_err());
        assert!(parse(&reply.replacen('1', "2", 1)).is_err());
        assert!(parse(&reply.replace("srv_uweight", "weight")).is_err());
        let cut = reply.trim_end().rsplit_once(" 0 ").unwrap().0;
        let cut = &cut[..cut.rfind("7001").unwrap()];
        assert!(parse(cut).is_err(), "{cut}");
    }
}
