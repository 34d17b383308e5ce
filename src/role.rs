//! What keepalived last said this machine is.
//!
//! What lives here: the roles, and the file that keeps one while hapilot is not
//! running. What it must not know: who tells it (`main`, `admin`), who shows it
//! (`report`), and what keepalived makes of it.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file's name below `--dir`: one word and a line break.
pub const ROLE_FILE: &str = "role";

/// The states of a `vrrp_instance`, as keepalived names them in its notifications.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It holds the virtual address: visitors come here.
    Master,
    /// The partner holds it, as far as this side can know.
    Backup,
    /// keepalived found something here that forbids to hold it.
    Fault,
    /// keepalived was ended here.
    Stop,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Master, Self::Backup, Self::Fault, Self::Stop];

    /// The word for it: on the command line, in the file, in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
            Self::Fault => "fault",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// No such role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a role is master, backup, fault or stop")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or(NoRole)
    }
}

/// A role, and when it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToldRole {
    /// Which.
    pub role: Role,
    /// Seconds since 1970.
    pub since: u64,
}

impl ToldRole {
    /// Told at this moment.
    #[must_use]
    pub fn now(role: Role) -> Self {
        Self { role, since: seconds(SystemTime::now()) }
    }
}

/// Keeps a role below `dir` for a hapilot that starts later. The directory must
/// be there.
pub fn keep(dir: &Path, role: Role) -> io::Result<()> {
    // By its own process: keepalived may start two notifications at a time.
    let new = dir.join(format!(".{ROLE_FILE}.{}.new", std::process::id()));
    let kept = fs::write(&new, format!("{role}\n")).and_then(|()| fs::rename(&new, file(dir)));
    if kept.is_err() {
        // What is left of it, if anything, says less than the error.
        let _ = fs::remove_file(&new);
    }
    kept
}

/// The role that was kept; `None` if none was.
pub fn kept(dir: &Path) -> io::Result<Option<ToldRole>> {
    let path = file(dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let role = text.trim_end().parse().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(Some(ToldRole { role, since: seconds(fs::metadata(&path)?.modified()?) }))
}

fn file(dir: &Path) -> PathBuf {
    dir.join(ROLE_FILE)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_their_role() {
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.word());
        }
        for word in ["", "MASTER", "master ", "none"] {
            assert_eq!(word.parse::<Role>(), Err(NoRole), "{word:?}");
        }
    }

    #[test]
    fn a_role_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept(dir.path()).unwrap(), None);
        let before = ToldRole::now(Role::Master).since;
        for role in Role::ALL {
            keep(dir.path(), role).unwrap();
            let told = kept(dir.path()).unwrap().unwrap();
            assert_eq!(told.role, role);
            assert!(told.since >= before - 1, "{told:?}");
        }
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, [ROLE_FILE]);
    }

    #[test]
    fn a_file_that_says_something_else_is_no_role() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ROLE_FILE), "king\n").unwrap();
        assert_eq!(kept(dir.path()).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(keep(&dir.path().join("away"), Role::Fault).is_err());
    }
}
