//! One running process, a child of ours or not.
//!
//! What lives here: waiting and signals by pidfd, so that a reused number never
//! hits a stranger. What it must not know: why it is waited for.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// Its process number.
    pub pid: u32,
    /// Its status; `None` for an adopted process, whose status only its parent
    /// is told.
    pub status: Option<ExitStatus>,
    /// For how long hapilot watched it.
    pub watched: Duration,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HAProxy (pid {}) {} after {:.1} s", self.pid, self.how(), self.watched.as_secs_f64())
    }
}

impl ExitReport {
    /// Without what differs from one try to the next, so that a crash loop can be
    /// told once.
    pub(super) fn how(&self) -> String {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => format!("ended with status {code}"),
            Some((None, Some(signal))) => format!("was ended by signal {signal}"),
            Some((None, None)) | None => "ended".to_owned(),
        }
    }
}

pub(super) struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// Held to reap it. Not killed when dropped: HAProxy outlives hapilot.
    child: Option<Child>,
    since: Instant,
}

impl Process {
    /// Takes over a process that is running already. Fails if it isn't.
    pub(super) fn adopt(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // Its replacement is `unsafe`, for types whose descriptor may change; an OwnedFd's doesn't.
        #[expect(deprecated, reason = "sound with an OwnedFd, and unsafe code is forbidden here")]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { pid, pidfd, child: None, since: Instant::now() })
    }

    /// Takes a child that was just started. It can't vanish before it is reaped,
    /// so its number is still its own.
    pub(super) fn child(child: Child) -> io::Result<Self> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the child is gone already"))?;
        Ok(Self { child: Some(child), ..Self::adopt(pid)? })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    pub(super) fn watched(&self) -> Duration {
        self.since.elapsed()
    }

    /// Waits for its end; at once if it ended already. May be dropped and called
    /// again.
    pub(super) async fn exited(&mut self) -> ExitReport {
        // Readable means ended. An error can only come from a runtime that is
        // shutting down; then nobody waits any more.
        let _ = self.pidfd.readable().await;
        let status = match &mut self.child {
            Some(child) => child.wait().await.ok(),
            None => None,
        };
        ExitReport { pid: self.pid.as_raw_nonzero().get().unsigned_abs(), status, watched: self.watched() }
    }

    /// Sends a signal; a process that ended already is fine.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_well() {
        let report = |status: Option<i32>| {
            let status = status.map(ExitStatus::from_raw);
            ExitReport { pid: 7, status, watched: Duration::from_millis(1_250) }.to_string()
        };
        assert_eq!(report(Some(1 << 8)), "HAProxy (pid 7) ended with status 1 after 1.2 s");
        assert_eq!(report(Some(9)), "HAProxy (pid 7) was ended by signal 9 after 1.2 s");
        assert_eq!(report(None), "HAProxy (pid 7) ended after 1.2 s");
    }

    #[tokio::test]
    async fn an_end_is_seen_whoever_the_parent_is() {
        let mut sleeper = tokio::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(sleeper.id().unwrap()).unwrap()).unwrap();
        let mut adopted = Process::adopt(pid).unwrap();
        adopted.signal(Signal::KILL).unwrap();
        assert_eq!(adopted.exited().await.status, None);
        assert_eq!(sleeper.wait().await.unwrap().signal(), Some(9));
        adopted.signal(Signal::KILL).unwrap();
        assert!(Process::adopt(pid).is_err());

        let mut child = Process::child(tokio::process::Command::new("false").spawn().unwrap()).unwrap();
        assert_eq!(child.exited().await.status.unwrap().code(), Some(1));
        assert_eq!(child.exited().await.status.unwrap().code(), Some(1));
    }
}
