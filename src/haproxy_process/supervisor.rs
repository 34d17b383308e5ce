//! HAProxy's life: found running or started, restarted after a crash, stopped
//! softly.
//!
//! What lives here: one HAProxy and the rules of starting it. What it must not
//! know: when to restart (its caller waits for the end and says so), and what
//! the configuration says (its caller gives it, fresh, before every start).
//!
//! HAProxy outlives hapilot: no death signal, a process group of its own (a
//! Ctrl-C at the terminal is hapilot's, which then stops HAProxy softly), and
//! hapilot's own stdout and stderr rather than pipes. A pipe's reader would die
//! with hapilot, and from then on HAProxy's access log would be lost.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;

use crate::backoff::Backoff;
use crate::haproxy_config::InstallError;

use super::adopt::{Listener, answering, listener};
use super::binary::HaproxyBinary;
use super::process::{ExitReport, Process};

/// Who lived this long didn't crash because of its start.
const STABLE: Duration = Duration::from_secs(10);
/// Between two starts in a crash loop: at least and at most.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Between start and the first answer. HAProxy with 10,000 servers needs half a
/// second on a slow machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether a starting HAProxy answers already.
const START_POLL: Duration = Duration::from_millis(5);
/// Between SIGTERM, which HAProxy obeys at once, and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Puts the present state's configuration in place. Called just before every
/// start, on a thread that may block; HAProxy then starts complete.
pub trait Configure: Send + Sync + 'static {
    /// Writes the files and returns the configuration's path.
    fn configure(&self) -> Result<PathBuf, InstallError>;
}

impl<F: Fn() -> Result<PathBuf, InstallError> + Send + Sync + 'static> Configure for F {
    fn configure(&self) -> Result<PathBuf, InstallError> {
        self()
    }
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub binary: HaproxyBinary,
    /// The unix socket that the configuration makes it listen on.
    pub socket: PathBuf,
}

/// Why HAProxy isn't running now.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its configuration couldn't be put in place.
    #[error(transparent)]
    Configure(#[from] InstallError),
    /// The system refused to start it.
    #[error("can't start {}: {source}", .binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it answered, for instance because the port is taken.
    #[error("HAProxy {} before it served anything; its reason stands on stderr above", .0.how())]
    Exited(ExitReport),
    /// It runs, but gave no answer on its socket within 30 seconds; it was
    /// ended.
    #[error("HAProxy was started but doesn't answer on {}; it was ended", .0.display())]
    Silent(PathBuf),
    /// One runs already and can't be asked. A second one would take its socket away
    /// from it, and could not have its port.
    #[error(
        "{} listens on {} and says nothing: all its sessions are taken (end those that nobody needs), or it hangs (end it, and hapilot starts another)",
        .pid.map_or("somebody".to_owned(), |pid| format!("process {pid}")), .socket.display()
    )]
    Taken {
        /// Its socket.
        socket: PathBuf,
        /// Its process number, if the system tells.
        pid: Option<i32>,
    },
}

/// How HAProxy came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowStopped {
    /// By itself, with every request answered (or cut by its own
    /// `hard-stop-after`).
    Softly,
    /// After the grace time, by SIGTERM: what was in flight was cut.
    Terminated,
    /// It didn't obey SIGTERM.
    Killed,
}

/// HAProxy can't be stopped: the system refuses the signal (an adopted HAProxy
/// of another user).
#[derive(Debug, thiserror::Error)]
#[error("can't stop HAProxy (pid {pid}): {source}")]
pub struct StopError {
    /// Its process number.
    pub pid: u32,
    /// What the system said.
    pub source: io::Error,
}

/// One HAProxy and how to start it again. Dropping this leaves HAProxy running.
pub struct Supervisor<C> {
    launch: Launch,
    configure: Arc<C>,
    process: Process,
    backoff: Backoff,
    /// Started again before: the next early end is a crash loop.
    restarted: bool,
    /// The last try to start it failed.
    start_failed: bool,
}

impl<C: Configure> Supervisor<C> {
    /// Takes over the HAProxy that answers on the socket as it is, configuration
    /// and all; starts one if none does. When this returns, HAProxy answers.
    pub async fn start(launch: Launch, configure: C) -> Result<Self, StartError> {
        let configure = Arc::new(configure);
        let process = match adopt(&launch).await? {
            Some(process) => process,
            None => spawn(&launch, &configure).await?,
        };
        Ok(Self {
            launch,
            configure,
            process,
            backoff: Backoff::new(RESTART_PAUSE.0, RESTART_PAUSE.1),
            restarted: false,
            start_failed: false,
        })
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// True while the HAProxy at hand was started by an earlier hapilot.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.process.is_adopted()
    }

    /// Waits until HAProxy has ended; at once if it has. May be dropped and
    /// called again.
    pub async fn wait_exit(&mut self) -> ExitReport {
        self.process.exited().await
    }

    /// Starts HAProxy again after its end: at once the first time, after growing
    /// pauses when it ends within ten seconds of its start or can't be started,
    /// again and again. After an error the caller just calls again.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        let pause = self.pause();
        tokio::time::sleep(pause).await;
        self.start_again().await
    }

    /// How long to wait before the next start; see [`Self::restart`].
    pub(super) fn pause(&mut self) -> Duration {
        if self.process.watched() >= STABLE && !self.start_failed {
            self.backoff.reset();
        } else if self.restarted {
            return self.backoff.next();
        }
        Duration::ZERO
    }

    /// The start itself; see [`Self::restart`].
    pub(super) async fn start_again(&mut self) -> Result<(), StartError> {
        self.restarted = true;
        self.start_failed = true;
        self.process = spawn(&self.launch, &self.configure).await?;
        self.start_failed = false;
        Ok(())
    }

    /// Stops HAProxy: no new connections, requests in flight are answered, idle
    /// connections closed. After `grace` what is left is cut. An open session on
    /// the Runtime API counts as in flight: close it before.
    pub async fn stop(&mut self, grace: Duration) -> Result<(ExitReport, HowStopped), StopError> {
        for (signal, patience, how) in
            [(Signal::USR1, grace, HowStopped::Softly), (Signal::TERM, TERM_GRACE, HowStopped::Terminated)]
        {
            self.signal(signal)?;
            if let Ok(report) = tokio::time::timeout(patience, self.process.exited()).await {
                return Ok((report, how));
            }
        }
        self.signal(Signal::KILL)?;
        Ok((self.process.exited().await, HowStopped::Killed))
    }

    fn signal(&self, signal: Signal) -> Result<(), StopError> {
        self.process.signal(signal).map_err(|source| StopError { pid: self.pid(), source })
    }
}

async fn adopt(launch: &Launch) -> Result<Option<Process>, StartError> {
    let pid = match listener(&launch.socket).await {
        Listener::Serves(pid) => pid,
        Listener::Silent(pid) => return Err(StartError::Taken { socket: launch.socket.clone(), pid }),
        Listener::Nobody => return Ok(None),
    };
    let Ok(process) = Process::adopt(pid) else { return Ok(None) };
    // Asked again, now that the number can't be reused unseen: it is the same.
    Ok((answering(&launch.socket).await == Some(pid)).then_some(process))
}

async fn spawn<C: Configure>(launch: &Launch, configure: &Arc<C>) -> Result<Process, StartError> {
    let configure = Arc::clone(configure);
    let config = match tokio::task::spawn_blocking(move || configure.configure()).await {
        Ok(config) => config?,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => {
                return Err(StartError::Spawn {
                    binary: launch.binary.path.clone(),
                    source: io::Error::other(cancelled),
                });
            }
        },
    };
    let process = Command::new(&launch.binary.path)
        // -db: stays in the foreground, one process, no master.
        .arg("-db")
        .arg("-f")
        .arg(config)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .and_then(Process::child)
        .map_err(|source| StartError::Spawn { binary: launch.binary.path.clone(), source })?;
    until_it_answers(process, &launch.socket).await
}

async fn until_it_answers(mut process: Process, socket: &Path) -> Result<Process, StartError> {
    let pid = process.pid();
    let answers = async {
        while answering(socket).await != Some(pid) {
            tokio::time::sleep(START_POLL).await;
        }
    };
    tokio::select! {
        report = process.exited() => return Err(StartError::Exited(report)),
        answered = tokio::time::timeout(START_DEADLINE, answers) => {
            if answered.is_ok() {
                return Ok(process);
            }
        }
    }
    // Ours since a moment ago, so the signal can't be refused.
    let _ = process.signal(Signal::KILL);
    process.exited().await;
    Err(StartError::Silent(socket.to_owned()))
}
