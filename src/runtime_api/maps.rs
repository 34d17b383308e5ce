//! By which path HAProxy knows each map.
//!
//! What lives here: the paths, and finding them in the reply to `show map`. A
//! map's path stands in HAProxy's configuration and needn't be a path that
//! hapilot could open: HAProxy may run in another container. What it must not
//! know: what stands in a map.

use std::fmt;

use super::parse::map_listing::ListedMap;
use crate::core::state::Map;

/// The path of a map, as a word of a Runtime API command: printable ASCII
/// without blank, quote, backslash, `;`, `<` and `#`, not beginning in `@`
/// (that would be a version), 1 to 4,096 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MapPath(String);

impl MapPath {
    /// Longest path accepted, in bytes (`PATH_MAX` of Linux).
    pub const LIMIT: usize = 4_096;

    /// Takes a text as a map's path; `None` if it can't be a word of a command.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let fine = (1..=Self::LIMIT).contains(&path.len())
            && !path.starts_with('@')
            && path
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b';' | b'<' | b'#'));
        fine.then(|| Self(path.to_owned()))
    }

    /// The path itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MapPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of each map that is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapPaths {
    /// In the order of [`Map::ALL`].
    paths: [Option<MapPath>; Map::ALL.len()],
}

/// HAProxy has no such map, or two of them, or one whose path can't be written
/// in a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapPathError {
    /// No file of that name is listed.
    #[error("HAProxy has no map whose file ends in maps/{}", .0.file_name())]
    Missing(Map),
    /// Two files of that name are listed.
    #[error("HAProxy has more than one map whose file ends in maps/{}", .0.file_name())]
    Ambiguous(Map),
    /// The path can't be a word of a command.
    #[error("the path of the map maps/{} has a blank or another character that no command can hold", .0.file_name())]
    Unspeakable(Map),
}

impl MapPaths {
    /// Finds every map of hapilot's in the reply to `show map`: the one whose
    /// file ends in `maps/` and [`Map::file_name`].
    pub fn discover(listed: &[ListedMap<'_>]) -> Result<Self, MapPathError> {
        let mut found = Self::default();
        for map in Map::ALL {
            let mut files = listed.iter().map(|entry| entry.file).filter(|file| is_file_of(map, file));
            let file = files.next().ok_or(MapPathError::Missing(map))?;
            if files.any(|other| other != file) {
                return Err(MapPathError::Ambiguous(map));
            }
            found.set(map, MapPath::new(file).ok_or(MapPathError::Unspeakable(map))?);
        }
        Ok(found)
    }

    /// Takes note of a map's path.
    pub fn set(&mut self, map: Map, path: MapPath) {
        if let Some(slot) = self.paths.get_mut(map as usize) {
            *slot = Some(path);
        }
    }

    /// The path of a map, if it is known.
    #[must_use]
    pub fn get(&self, map: Map) -> Option<&MapPath> {
        self.paths.get(map as usize)?.as_ref()
    }
}

fn is_file_of(map: Map, file: &str) -> bool {
    let Some(directory) = file.strip_suffix(map.file_name()).and_then(|rest| rest.strip_suffix("maps/"))
    else {
        return false;
    };
    directory.is_empty() || directory.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(file: &str) -> ListedMap<'_> {
        ListedMap { id: 0, file, entries: None }
    }

    #[test]
    fn the_place_of_a_map_is_its_place_in_the_list_of_all() {
        for (place, map) in Map::ALL.into_iter().enumerate() {
            assert_eq!(map as usize, place);
        }
    }

    #[test]
    fn maps_are_found_by_the_end_of_their_path() {
        let paths = MapPaths::discover(&[
            listed("/etc/haproxy/other.map"),
            listed("/data/notmaps/hosts.map"),
            listed("/data/maps/hosts.map"),
            listed("/data/maps/checks.map"),
            listed("/data/maps/sticky.map"),
            listed("maps/names.map"),
        ])
        .unwrap();
        assert_eq!(paths.get(Map::Hosts).unwrap().as_str(), "/data/maps/hosts.map");
        assert_eq!(paths.get(Map::Names).unwrap().as_str(), "maps/names.map");
    }

    #[test]
    fn a_missing_a_double_and_an_unspeakable_map_are_told_apart() {
        let names = listed("/d/maps/names.map");
        let outcome =
            |more: &[ListedMap<'static>]| MapPaths::discover(&[more, &[names]].concat()).unwrap_err();
        assert_eq!(outcome(&[]), MapPathError::Missing(Map::Hosts));
        assert_eq!(
            outcome(&[listed("/d/maps/hosts.map"), listed("/e/maps/hosts.map")]),
            MapPathError::Ambiguous(Map::Hosts)
        );
        assert_eq!(outcome(&[listed("/d e/maps/hosts.map")]), MapPathError::Unspeakable(Map::Hosts));
    }

    #[test]
    fn no_path_can_break_out_of_a_command() {
        for path in ["", "a b", "a;b", "a\\b", "a\nb", "@1", "#1", "a\"b", "a'b", "a<<", "é", "a\0b"] {
            assert_eq!(MapPath::new(path), None, "{path:?}");
        }
        assert_eq!(MapPath::new(&"a".repeat(MapPath::LIMIT + 1)), None);
    }
}
