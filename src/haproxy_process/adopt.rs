//! Which HAProxy answers on a unix socket.
//!
//! What lives here: one question with its own short-lived connection. What it
//! must not know: every other command; those are `runtime_api`'s.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A process that serves answers at once.
const DEADLINE: Duration = Duration::from_secs(2);
/// `show info` has about 3 kB.
const LONGEST_REPLY: u64 = 64 * 1024;

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// An HAProxy that serves and isn't on its way out.
    Serves(Pid),
    /// Somebody who doesn't answer: all its sessions are taken (`stats maxconn`), or
    /// it hangs. Its process, if the system tells.
    Silent(Option<i32>),
    /// Nobody, an HAProxy that is stopping, or no HAProxy at all.
    Nobody,
}

/// Who listens on this socket.
pub(super) async fn listener(socket: &Path) -> Listener {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        // The queue of those who wait to be let in is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Listener::Silent(None),
        Err(_) => return Listener::Nobody,
    };
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    match tokio::time::timeout(DEADLINE, ask(stream)).await {
        Ok(Ok(reply)) => pid_in(&reply).map_or(Listener::Nobody, Listener::Serves),
        Ok(Err(_)) => Listener::Nobody,
        Err(_elapsed) => Listener::Silent(pid),
    }
}

/// The process that answers `show info` on this socket and isn't on its way out.
pub(super) async fn answering(socket: &Path) -> Option<Pid> {
    match listener(socket).await {
        Listener::Serves(pid) => Some(pid),
        Listener::Silent(_) | Listener::Nobody => None,
    }
}

async fn ask(mut stream: UnixStream) -> io::Result<String> {
    // Without `prompt` HAProxy answers one command and closes.
    stream.write_all(b"show info\n").await?;
    let mut reply = Vec::new();
    stream.take(LONGEST_REPLY).read_to_end(&mut reply).await?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn pid_in(reply: &str) -> Option<Pid> {
    let field =
        |name: &str| reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let ours = field("Name")? == "HAProxy" && field("Stopping").unwrap_or("0") == "0";
    if !ours {
        return None;
    }
    Pid::from_raw(field("Pid")?.parse().ok().filter(|&pid: &i32| pid > 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_of_a_serving_haproxy() {
        let pid = |reply| pid_in(reply).map(Pid::as_raw_nonzero).map(std::num::NonZeroI32::get);
        assert_eq!(pid("Name: HAProxy\nVersion: 3.0.11\nPid: 77\nStopping: 0\n\n"), Some(77));
        for refused in [
            "Name: HAProxy\nPid: 77\nStopping: 1\n",
            "Name: HAProxy\nPid: 0\n",
            "Name: HAProxy\nPid: -1\n",
            "Name: HAProxy\n",
            "Name: other\nPid: 77\n",
            "Permission denied\n",
            "",
        ] {
            assert_eq!(pid(refused), None, "{refused}");
        }
    }

    #[tokio::test]
    async fn nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        assert_eq!(answering(&socket).await, None);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(answering(&socket).await, None);
        assert_eq!(listener(&socket).await, Listener::Nobody);
    }

    #[tokio::test]
    async fn somebody_listens_and_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(listener(&socket).await, Listener::Silent(Some(own)));
    }
}
