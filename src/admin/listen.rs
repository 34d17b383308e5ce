//! Taking a directory and its admin sockets.
//!
//! What lives here: the rule that one directory belongs to one hapilot, and the
//! safe replacing of a socket that a dead one left. What it must not know: what
//! is served on a socket.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::settings::{AdminAddress, SafePath, admin_socket};

/// Who may ask: the owner and the group.
const SOCKET_MODE: u32 = 0o660;

/// The admin server can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The directory can't be made or written to.
    #[error("--dir {path}: can't use the directory")]
    Directory {
        /// Which one.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another hapilot works in this directory.
    #[error("another hapilot is running on --dir {path}; stop it, or choose another --dir")]
    Taken {
        /// Which one.
        path: String,
    },
    /// Somebody answers at the admin address.
    #[error("--admin {path}: somebody else is listening there")]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file that is no socket; it is left alone.
    #[error("{path} is in the way and is not a socket; remove it")]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("can't listen on {address}")]
    Bind {
        /// Where.
        address: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A directory that is ours, and the sockets on which to answer. Dropping it
/// removes the sockets and gives the directory free.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: Vec<OwnSocket>,
    pub(super) tcp: Option<TcpListener>,
    /// Held for its lock, which the kernel drops when the process dies however
    /// that happens. The last field: the sockets go first.
    _lock: File,
}

impl Listeners {
    /// Makes the directory if need be, takes it, and listens on
    /// `<dir>/hapilot.sock` and on `admin`. Must be called inside a tokio runtime.
    pub async fn bind(dir: &SafePath, admin: Option<&AdminAddress>) -> Result<Self, ListenError> {
        let lock = take(dir)?;
        let own = admin_socket(dir);
        let mut unix = vec![bind_unix(&own).await?];
        let mut tcp = None;
        match admin {
            Some(AdminAddress::Unix(path)) if path.as_ref() != own => {
                unix.push(bind_unix(path.as_ref()).await?);
            }
            Some(AdminAddress::Tcp(address)) => {
                let bound = TcpListener::bind(address).await;
                tcp =
                    Some(bound.map_err(|source| ListenError::Bind {
                        address: format!("--admin {address}"),
                        source,
                    })?);
            }
            Some(AdminAddress::Unix(_)) | None => {}
        }
        Ok(Self { unix, tcp, _lock: lock })
    }

    /// The TCP address, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// A lock rather than a look at the socket: between looking and binding a
/// second hapilot could do the same.
fn take(dir: &SafePath) -> Result<File, ListenError> {
    let error = |source| ListenError::Directory { path: dir.to_string(), source };
    std::fs::create_dir_all(dir.as_str()).map_err(error)?;
    let path = dir.join("hapilot.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ListenError::Taken { path: dir.to_string() }),
        Err(source) => Err(error(source.into())),
    }
}

/// A unix socket that is removed when it is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct OwnSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            // Nobody can act on a failure here; the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn bind_unix(path: &Path) -> Result<OwnSocket, ListenError> {
    let error = |source| ListenError::Bind { address: path.display().to_string(), source };
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(ListenError::InTheWay { path: path.to_owned() });
        }
        match UnixStream::connect(path).await {
            // Nobody holds the other end: what is left of a dead process.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Ok(_) => return Err(ListenError::Busy { path: path.to_owned() }),
            Err(source) => return Err(error(source)),
        }
    }
    // Made aside and moved into place: nobody sees it with wider permissions,
    // and there is no moment without a socket for those who ask.
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match std::fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&aside).map_err(error)?;
    let place = || {
        std::fs::set_permissions(&aside, Permissions::from_mode(SOCKET_MODE))?;
        let inode = std::fs::symlink_metadata(&aside)?.ino();
        std::fs::rename(&aside, path)?;
        Ok(inode)
    };
    let inode = place().map_err(error)?;
    Ok(OwnSocket { listener, path: path.to_owned(), inode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::dir;

    fn directory() -> (tempfile::TempDir, SafePath) {
        let temp = tempfile::tempdir().unwrap();
        let path = dir(temp.path().join("run").to_str().unwrap()).unwrap();
        (temp, path)
    }

    #[tokio::test]
    async fn a_directory_belongs_to_one() {
        let (_temp, dir) = directory();
        let first = Listeners::bind(&dir, None).await.unwrap();
        let refused = Listeners::bind(&dir, None).await.unwrap_err();
        assert!(matches!(refused, ListenError::Taken { .. }), "{refused}");
        let mode = std::fs::metadata(admin_socket(&dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop(first);
        assert!(!admin_socket(&dir).exists());
        Listeners::bind(&dir, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_of_a_dead_one_is_replaced() {
        let (_temp, dir) = directory();
        std::fs::create_dir(dir.as_str()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(admin_socket(&dir)).unwrap());
        assert!(admin_socket(&dir).exists());
        let _listeners = Listeners::bind(&dir, None).await.unwrap();
        UnixStream::connect(admin_socket(&dir)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let (_temp, dir) = directory();
        std::fs::create_dir(dir.as_str()).unwrap();
        std::fs::write(admin_socket(&dir), "precious").unwrap();
        let refused = Listeners::bind(&dir, None).await.unwrap_err();
        assert!(matches!(refused, ListenError::InTheWay { .. }), "{refused}");
        assert_eq!(std::fs::read_to_string(admin_socket(&dir)).unwrap(), "precious");
        std::fs::remove_file(admin_socket(&dir)).unwrap();

        let _other = UnixListener::bind(admin_socket(&dir)).unwrap();
        let refused = Listeners::bind(&dir, None).await.unwrap_err();
        assert!(matches!(refused, ListenError::Busy { .. }), "{refused}");
        UnixStream::connect(admin_socket(&dir)).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let refused = Listeners::bind(&dir("/proc/self/no").unwrap(), None).await.unwrap_err();
        assert!(refused.to_string().contains("--dir /proc/self/no"), "{refused}");
    }
}
