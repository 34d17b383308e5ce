//! Text → files, so that at every instant what lies on disk is whole.
//!
//! What lives here: the order of writing. All new files are written beside the
//! old ones and forced to disk, HAProxy checks them, and only then they take
//! their places: maps first, the configuration last. A disk that is full or
//! read-only is found while the old files are untouched. What it must not know:
//! what the text says. Blocks; one writer per directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::check::{CheckError, check};
use super::render::RenderedConfig;

/// The configuration's name below the directory.
pub const CONFIG_FILE: &str = "haproxy.cfg";
/// Where the maps lie below the directory.
pub const MAPS_DIR: &str = "maps";

/// Why the new configuration isn't in place. The old one still is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file system refused.
    #[error("can't {action} {}: {source}{}", .path.display(), advice(.source))]
    File {
        /// `read`, `write`, `create`, `replace`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// HAProxy refuses it, or couldn't be asked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// hapilot is about to end and gives no configuration any more.
    #[error("hapilot is about to end")]
    Ending,
}

impl InstallError {
    /// True if the same call may succeed once somebody made room or lifted a
    /// restriction; false if the text itself is at fault.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Check(CheckError::Refused { .. }))
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room there (the old configuration is kept)"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; mount it writable or choose another --dir (the old configuration is kept)"
        }
        ErrorKind::PermissionDenied => "; let hapilot's user write there or choose another --dir",
        ErrorKind::NotADirectory => "; a file stands where a directory must be",
        _ => "",
    }
}

/// A new file beside the one it will replace. Goes away with its value, so that
/// a failure leaves no litter on a full disk; after a kill the next call
/// overwrites it.
struct Candidate {
    target: PathBuf,
    path: PathBuf,
}

impl Candidate {
    fn write(target: PathBuf, text: &str) -> Result<Self, InstallError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.new"));
        let candidate = Self { target, path };
        let fill = || {
            let mut file = File::create(&candidate.path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        fill().map_err(|source| failed("write", &candidate.path, source))?;
        Ok(candidate)
    }

    fn replace(self) -> Result<(), InstallError> {
        fs::rename(&self.path, &self.target).map_err(|source| failed("replace", &self.target, source))
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name: fine.
        let _ = fs::remove_file(&self.path);
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> InstallError {
    InstallError::File { action, path: path.to_owned(), source }
}

/// Puts a configuration in place below `dir` (as hapilot sees it) and returns
/// the configuration's path. Files whose text didn't change aren't touched. With
/// `haproxy` that program must accept it first; it must see `dir` under the name
/// that the text was rendered for.
pub fn install(
    rendered: &RenderedConfig,
    dir: &Path,
    haproxy: Option<&Path>,
) -> Result<PathBuf, InstallError> {
    let maps = dir.join(MAPS_DIR);
    fs::create_dir_all(&maps).map_err(|source| failed("create", &maps, source))?;

    let mut changed = Vec::new();
    for (map, text) in &rendered.maps {
        let target = maps.join(map.file_name());
        match says(&target, text)? {
            Some(true) => continue,
            Some(false) => {}
            // `haproxy -c` wants the file to exist, whatever it says.
            None => drop(File::create(&target).map_err(|source| failed("create", &target, source))?),
        }
        changed.push(Candidate::write(target, text)?);
    }

    let config = dir.join(CONFIG_FILE);
    let to_check = if says(&config, &rendered.haproxy_cfg)? == Some(true) {
        config.clone()
    } else {
        let candidate = Candidate::write(config.clone(), &rendered.haproxy_cfg)?;
        let path = candidate.path.clone();
        changed.push(candidate);
        path
    };
    if let Some(haproxy) = haproxy {
        check(haproxy, &to_check)?;
    }
    for candidate in changed {
        candidate.replace()?;
    }
    for directory in [maps.as_path(), dir] {
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|source| failed("write", directory, source))?;
    }
    Ok(config)
}

/// Whether a file says just this; `None` if there is none. As a rule another
/// length tells, and the file need not be read.
fn says(path: &Path, text: &str) -> Result<Option<bool>, InstallError> {
    let length = fs::metadata(path).map(|file| file.len());
    let same =
        length.and_then(|length| Ok(length == text.len() as u64 && fs::read(path)? == text.as_bytes()));
    match same {
        Ok(same) => Ok(Some(same)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
