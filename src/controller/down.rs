//! The file by which keepalived hears of HAProxy's end within milliseconds.
//!
//! What lives here: when it is written. What it must not know: what keepalived
//! makes of it (`keepalived`).
//!
//! keepalived's own look at HAProxy comes once a second; this one comes when the
//! connection ends and the next attempt fails.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::keepalived::HAPROXY_DOWN_FILE;

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct DownFile {
    path: PathBuf,
    says: Option<bool>,
}

impl DownFile {
    /// What it says now is what an earlier hapilot wrote; it stays until HAProxy
    /// has been looked for.
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join(HAPROXY_DOWN_FILE), says: None }
    }

    /// Writes whether HAProxy is down, if that is news. Two bytes in place: a new
    /// file under the old name would be another one to who watches it.
    pub(super) fn write(&mut self, down: bool) {
        if self.says == Some(down) {
            return;
        }
        match std::fs::write(&self.path, if down { "1\n" } else { "0\n" }) {
            Ok(()) => self.says = Some(down),
            // Tried again with the next news; keepalived's own look at HAProxy is there too.
            Err(error) => {
                warn!(path = %self.path.display(), %error, "keepalived can't be told how HAProxy is");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HAPROXY_DOWN_FILE);
        let mut file = DownFile::new(dir.path());
        assert!(!path.exists());
        for (down, text) in [(true, "1\n"), (false, "0\n")] {
            file.write(down);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            std::fs::write(&path, "x").unwrap();
            file.write(down);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
        }
        let mut nowhere = DownFile::new(&dir.path().join("away"));
        nowhere.write(true);
        assert_eq!(nowhere.says, None);
    }
}
