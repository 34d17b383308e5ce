//! Arguments → tracing → runtime → exit code. Knows no Docker and no HAProxy.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use hapilot::admin::client::{AskError, Client};
use hapilot::cli::{Action, CheckArgs, Cli, ClientArgs, LeaveArgs, RenderArgs, RoleArgs, RunArgs, exit};
use hapilot::keepalived;
use hapilot::logging::{self, one_line};
use hapilot::report::{Health, Status, Verdict};
use hapilot::role::{self, Role};
use hapilot::settings::{self, CheckSettings, KeepalivedSettings, LogSettings, RuntimeApi, Settings};
use hapilot::shutdown::Signals;

/// For what is cut short by a second signal to end by itself.
const ABORT_TIME: Duration = Duration::from_secs(1);
/// Between two looks at the role that keepalived told.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Two threads: the controller on one, the admin server and sockets on the other.
const THREADS: usize = 2;

/// An error that ends the process: its exit code, and what to say.
type Failure = (u8, Box<dyn Error>);

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let ended = match &cli.command {
        Action::Run(args) => run(args),
        Action::Render(args) => render(args),
        Action::Status(args) => ask(args, async |client| show(&client.status().await?, args.json)),
        Action::Plan(args) => ask(args, async |client| show(&client.plan().await?, args.json)),
        Action::Check(args) => check(args),
        Action::Role(args) => tell(args),
        Action::Leave(args) => leave(args),
    };
    ExitCode::from(ended.unwrap_or_else(|(code, error)| {
        // Nothing is left to do if stderr is closed.
        let _ = writeln!(io::stderr(), "hapilot: {}", one_line(error.as_ref()));
        code
    }))
}

fn run(args: &RunArgs) -> Result<u8, Failure> {
    let settings = Settings::new(&args.values).map_err(failure(exit::USAGE))?;
    let log = LogSettings::new(&args.log).map_err(failure(exit::USAGE))?;
    logging::start(&log).map_err(failure(exit::USAGE))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(failure(exit::FAILED))?;
    let ended = runtime.block_on(async {
        let signals = Signals::listen().map_err(failure(exit::FAILED))?;
        let aborted = async {
            signals.abort.cancelled().await;
            tokio::time::sleep(ABORT_TIME).await;
        };
        tokio::select! {
            ended = hapilot::run(settings, signals.clone()) => {
                ended.map_err(failure(exit::FAILED))?;
                Ok(if signals.abort.is_cancelled() { exit::ABORTED } else { exit::WELL })
            }
            () = aborted => Ok(exit::ABORTED),
        }
    });
    // A blocking call that hangs (a name look-up) must not hold up the end.
    runtime.shutdown_timeout(ABORT_TIME);
    ended
}

fn render(args: &RenderArgs) -> Result<u8, Failure> {
    let settings = Settings::new(&args.values).map_err(failure(exit::USAGE))?;
    let text = if args.keepalived.keepalived {
        let program = std::env::current_exe().unwrap_or_default();
        let settings = KeepalivedSettings::new(&args.keepalived, &settings, &program.to_string_lossy());
        keepalived::render(&settings.map_err(failure(exit::USAGE))?)
    } else {
        let client = Client::new(settings::admin_socket(&settings.dir));
        match wait(client.render())? {
            Err(error) if error.is_absent() => hapilot::render(&settings).map_err(failure(exit::FAILED))?,
            answer => answer.map_err(failure(exit::HAPILOT_SILENT))?,
        }
    };
    if args.json {
        let json = serde_json::json!({ "configuration": text });
        print(&format!("{json:#}\n"))
    } else {
        print(&text)
    }
    .map_err(failure(exit::FAILED))?;
    Ok(exit::WELL)
}

/// What can go wrong between a question and its answer on the screen.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("can't write JSON")]
    Json(#[from] serde_json::Error),
    #[error("can't write to stdout")]
    Print(#[from] io::Error),
}

/// What keepalived or hapilot is to read there can't be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write to {}, which should be the --dir of this machine's hapilot", .dir.display())]
struct Unwritable {
    dir: PathBuf,
    source: io::Error,
}

/// The partner is away, or worse.
#[derive(Debug, thiserror::Error)]
#[error("the partner did not take the address in time; it stays here")]
struct StillHere;

fn ask(
    args: &ClientArgs,
    question: impl AsyncFnOnce(Client) -> Result<u8, AnswerError>,
) -> Result<u8, Failure> {
    let dir = settings::dir(&args.dir).map_err(failure(exit::USAGE))?;
    wait(question(Client::new(settings::admin_socket(&dir))))?.map_err(unanswered)
}

fn unanswered(error: AnswerError) -> Failure {
    let code = if matches!(error, AnswerError::Ask(_)) { exit::HAPILOT_SILENT } else { exit::FAILED };
    (code, error.into())
}

/// A runtime on this thread, for one exchange.
fn wait<T>(exchange: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failure(exit::FAILED))?;
    Ok(runtime.block_on(exchange))
}

fn show<T: Display + Serialize>(report: &T, json: bool) -> Result<u8, AnswerError> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() };
    print(&text)?;
    Ok(exit::WELL)
}

fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let settings = CheckSettings::new(args).map_err(failure(exit::USAGE))?;
    if let Some(socket) = &settings.haproxy {
        return check_haproxy(socket, settings.timeout, args.json);
    }
    let client = Client::new(settings::admin_socket(&settings.dir)).within(settings.timeout);
    let judged = async {
        if args.servers {
            reached(&client.status().await?, args.json)
        } else {
            judge(&client.health().await?, args.json)
        }
    };
    wait(judged)?.map_err(unanswered)
}

fn reached(status: &Status, json: bool) -> Result<u8, AnswerError> {
    let unreached = status.unreached();
    let text = match unreached {
        _ if json => format!("{:#}\n", serde_json::json!({ "unreached": unreached })),
        Some(down) => format!("HAProxy reaches none of its {down} servers\n"),
        None => "well\n".to_owned(),
    };
    print(&text)?;
    Ok(if unreached.is_some() { exit::UNREACHED } else { exit::WELL })
}

fn check_haproxy(socket: &RuntimeApi, timeout: Duration, json: bool) -> Result<u8, Failure> {
    let error = wait(hapilot::check_haproxy(socket, timeout))?.err().map(|error| one_line(&error));
    let text = if json {
        format!("{:#}\n", serde_json::json!({ "haproxy": { "connected": error.is_none(), "error": error } }))
    } else {
        error.as_ref().map_or_else(|| "well\n".to_owned(), |error| format!("{error}\n"))
    };
    print(&text).map_err(failure(exit::FAILED))?;
    Ok(if error.is_none() { exit::WELL } else { exit::HAPROXY_SILENT })
}

/// The file first: a hapilot that is just starting reads it after its socket is
/// there, so it gets the role in one way or the other.
fn tell(args: &RoleArgs) -> Result<u8, Failure> {
    let role: Role = args.role.parse().map_err(failure(exit::USAGE))?;
    let dir = settings::dir(&args.dir).map_err(failure(exit::USAGE))?;
    role::keep(dir.as_ref(), role).map_err(unwritable(dir.as_ref()))?;
    match wait(Client::new(settings::admin_socket(&dir)).tell(role))? {
        Err(error) if !error.is_absent() => Err(failure(exit::HAPILOT_SILENT)(error)),
        _ => Ok(exit::WELL),
    }
}

/// keepalived tells by the role when the partner has taken over.
fn leave(args: &LeaveArgs) -> Result<u8, Failure> {
    let dir = settings::dir(&args.dir).map_err(failure(exit::USAGE))?;
    let timeout = settings::leave_timeout(args).map_err(failure(exit::USAGE))?;
    let weight = format!("{}\n", keepalived::LEAVING);
    std::fs::write(dir.join(keepalived::WEIGHT_FILE), weight).map_err(unwritable(dir.as_ref()))?;
    let deadline = Instant::now() + timeout;
    loop {
        let kept = role::kept(dir.as_ref()).map_err(failure(exit::FAILED))?;
        if kept.is_none_or(|told| told.role != Role::Master) {
            return Ok(exit::WELL);
        }
        if Instant::now() >= deadline {
            return Err(failure(exit::FAILED)(StillHere));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn judge(health: &Health, json: bool) -> Result<u8, AnswerError> {
    let verdict = health.verdict();
    if json {
        show(health, true)?;
    } else {
        print(&health.in_a_line())?;
    }
    Ok(match verdict {
        Verdict::Well => exit::WELL,
        Verdict::HaproxySilent(_) => exit::HAPROXY_SILENT,
        Verdict::Stale(_) => exit::STALE,
        Verdict::NotConverged(_) => exit::FAILED,
    })
}

fn unwritable(dir: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| failure(exit::FAILED)(Unwritable { dir: dir.to_owned(), source })
}

fn failure<E: Error + 'static>(code: u8) -> impl FnOnce(E) -> Failure {
    move |error| (code, Box::new(error))
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}
