//! Which HAProxy there is to start.
//!
//! What lives here: `haproxy -v` and what it means. What it must not know: how
//! HAProxy is run.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::core::command::{Capabilities, OLDEST, Version};
use crate::haproxy_config::printable;

/// A program that said it is HAProxy, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaproxyBinary {
    /// As it was given: a path, or a name that is looked up in `PATH`.
    pub path: PathBuf,
    /// What `haproxy -v` says.
    pub version: Version,
}

/// What was looked for, and where.
fn sought(path: &Path) -> String {
    let place = if path.components().count() == 1 { " in PATH" } else { "" };
    format!("{}{place}", path.display())
}

/// Why there is no HAProxy to start.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// There is no such file, or none of this name in `PATH`.
    #[error("there is no {}: install HAProxy, or name it with --haproxy PATH", sought(.0))]
    Absent(PathBuf),
    /// The file may not be executed, or isn't a program for this machine.
    #[error("{} can't be executed: {source}", .path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ran, but didn't say that it is HAProxy.
    #[error("{} isn't HAProxy: asked for its version it said `{words}`", .path.display())]
    NotHaproxy {
        /// The file.
        path: PathBuf,
        /// What it said, printable, at most 2,000 characters.
        words: String,
    },
    /// It gave no answer within ten seconds.
    #[error("{} isn't HAProxy: asked for its version it said nothing", .0.display())]
    Silent(PathBuf),
    /// It is HAProxy, but older than hapilot can drive.
    #[error("{} is HAProxy {version}; hapilot needs {OLDEST} or later", .path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
}

impl HaproxyBinary {
    /// Asks the program at `path` (a path, or a name in `PATH`) what it is.
    pub async fn find(path: &Path) -> Result<Self, BinaryError> {
        let asked = Command::new(path).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
        let output = match tokio::time::timeout(Duration::from_secs(10), asked).await {
            Err(_elapsed) => return Err(BinaryError::Silent(path.to_owned())),
            Ok(Err(source)) if source.kind() == io::ErrorKind::NotFound => {
                return Err(BinaryError::Absent(path.to_owned()));
            }
            Ok(Err(source)) => return Err(BinaryError::NotExecutable { path: path.to_owned(), source }),
            Ok(Ok(output)) => output,
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(version) = version_in(&said) else {
            let words = printable(&format!("{said}\n{}", String::from_utf8_lossy(&output.stderr)));
            return Err(BinaryError::NotHaproxy { path: path.to_owned(), words });
        };
        match Capabilities::of(version) {
            Some(_) => Ok(Self { path: path.to_owned(), version }),
            None => Err(BinaryError::TooOld { path: path.to_owned(), version }),
        }
    }
}

/// `HAProxy version 3.0.11-1+deb13u4 2026/10/15 - https://haproxy.org/`; before
/// 2.4 it wrote `HA-Proxy`. A development version (`3.5-dev5`) has no patch.
fn version_in(output: &str) -> Option<Version> {
    let line = output.lines().next()?;
    let rest = line.strip_prefix("HAProxy version ").or_else(|| line.strip_prefix("HA-Proxy version "))?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let mut numbers = rest.get(..end)?.split('.').map(str::parse::<u16>);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next()?.ok()?;
    let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
    Some(Version { major, minor, patch })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn versions() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        for (line, expected) in [
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/", version(2, 6, 12)),
            ("HAProxy version 3.5-dev5-f81e6e9 2026/09/01 - https://haproxy.org/", version(3, 5, 0)),
            ("HA-Proxy version 1.8.19-1+deb10u5 2023/02/10", version(1, 8, 19)),
            ("HAProxy version 3", None),
            ("HAProxy version 99999.1", None),
            ("HAProxy version é", None),
            ("nginx version: nginx/1.22.1", None),
            ("", None),
        ] {
            assert_eq!(version_in(line), expected, "{line}");
        }
    }

    async fn message(path: &Path) -> String {
        HaproxyBinary::find(path).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn what_is_not_a_usable_haproxy_is_told_apart() {
        assert_eq!(
            message(Path::new("/nonexistent/haproxy")).await,
            "there is no /nonexistent/haproxy: install HAProxy, or name it with --haproxy PATH"
        );
        assert!(message(Path::new("/etc/passwd")).await.starts_with("/etc/passwd can't be executed: "));
        assert_eq!(
            message(Path::new("/bin/false")).await,
            "/bin/false isn't HAProxy: asked for its version it said ``"
        );
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("haproxy");
        std::fs::write(&old, "#!/bin/sh\necho 'HA-Proxy version 2.2.9-2+deb11u6 2023/04/10'\n").unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            message(&old).await,
            format!("{} is HAProxy 2.2.9; hapilot needs 2.6.0 or later", old.display())
        );
    }
}
