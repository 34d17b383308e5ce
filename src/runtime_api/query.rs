//! The questions that change nothing.
//!
//! What lives here: which `show` there is and how it is written. What it must
//! not know: what the answers mean (`parse`).

use std::fmt::Write as _;

use super::encode::UnknownMap;
use super::maps::MapPaths;
use crate::core::name::BackendName;
use crate::core::state::Map;

/// A question to HAProxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// `show version`
    ShowVersion,
    /// `show info`
    ShowInfo,
    /// `show cli level`
    ShowCliLevel,
    /// `show map`: which maps there are.
    ShowMaps,
    /// `show map F`: the entries of one.
    ShowMap(Map),
    /// `show backend`: the names.
    ShowBackends,
    /// `show servers state`, of all backends or of one.
    ShowServersState(Option<BackendName>),
    /// `show servers conn`, of all backends or of one.
    ShowServersConn(Option<BackendName>),
    /// `show stat … 4 -1`: the servers only, of all backends or of one.
    ShowStatServers(Option<BackendName>),
    /// `show stat -1 2 -1`: the backends only, all of them.
    ShowStatBackends,
}

impl Query {
    /// Appends the question and a line feed. Leaves `out` as it was on an error.
    pub fn encode(&self, maps: &MapPaths, out: &mut String) -> Result<(), UnknownMap> {
        // Writing to a String can't fail.
        let _ = match self {
            Self::ShowMap(map) => {
                let path = maps.get(*map).ok_or(UnknownMap(*map))?;
                writeln!(out, "show map {path}")
            }
            _ => writeln!(out, "{self}"),
        };
        Ok(())
    }
}

/// As it is written, except that a map is shown by its file's name: good for
/// messages.
impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ShowVersion => f.write_str("show version"),
            Self::ShowInfo => f.write_str("show info"),
            Self::ShowCliLevel => f.write_str("show cli level"),
            Self::ShowMaps => f.write_str("show map"),
            Self::ShowMap(map) => write!(f, "show map {}", map.file_name()),
            Self::ShowBackends => f.write_str("show backend"),
            Self::ShowServersState(None) => f.write_str("show servers state"),
            Self::ShowServersState(Some(backend)) => write!(f, "show servers state {backend}"),
            Self::ShowServersConn(None) => f.write_str("show servers conn"),
            Self::ShowServersConn(Some(backend)) => write!(f, "show servers conn {backend}"),
            Self::ShowStatServers(None) => f.write_str("show stat -1 4 -1"),
            Self::ShowStatBackends => f.write_str("show stat -1 2 -1"),
            Self::ShowStatServers(Some(backend)) => write!(f, "show stat {backend} 4 -1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_api::encode::tests::maps;

    #[test]
    fn every_question_is_written_as_the_manual_has_it() {
        let backend = || Some(BackendName::new("web:shop.example").unwrap());
        for (query, wanted) in [
            (Query::ShowVersion, "show version"),
            (Query::ShowInfo, "show info"),
            (Query::ShowCliLevel, "show cli level"),
            (Query::ShowMaps, "show map"),
            (Query::ShowMap(Map::Hosts), "show map /d/maps/hosts.map"),
            (Query::ShowBackends, "show backend"),
            (Query::ShowServersState(None), "show servers state"),
            (Query::ShowServersState(backend()), "show servers state web:shop.example"),
            (Query::ShowServersConn(None), "show servers conn"),
            (Query::ShowServersConn(backend()), "show servers conn web:shop.example"),
            (Query::ShowStatServers(None), "show stat -1 4 -1"),
            (Query::ShowStatBackends, "show stat -1 2 -1"),
            (Query::ShowStatServers(backend()), "show stat web:shop.example 4 -1"),
        ] {
            let mut out = String::new();
            query.encode(&maps(), &mut out).unwrap();
            assert_eq!(out, format!("{wanted}\n"));
        }
        assert_eq!(
            Query::ShowMap(Map::Hosts).encode(&MapPaths::default(), &mut String::new()),
            Err(UnknownMap(Map::Hosts))
        );
    }
}
