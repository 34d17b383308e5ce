//! Arguments → tracing → runtime → exit code. Knows no Docker and no HAProxy.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use hapilot::admin::client::{AskError, Client};
use hapilot::cli::{Action, Cli, ClientArgs, RenderArgs, RunArgs, exit};
use hapilot::logging::{self, one_line};
use hapilot::report::{Health, Verdict};
use hapilot::settings::{self, LogSettings, Settings};
use hapilot::shutdown::Signals;

/// For what is cut short by a second signal to end by itself.
const ABORT_TIME: Duration = Duration::from_secs(1);
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
        Action::Check(args) => ask(args, async |client| check(&client.health().await?, args.json)),
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
    let client = Client::new(settings::admin_socket(&settings.dir));
    let text = match wait(client.render())? {
        Err(error) if error.is_absent() => hapilot::render(&settings).map_err(failure(exit::FAILED))?,
        answer => answer.map_err(failure(exit::HAPILOT_SILENT))?,
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

fn ask(
    args: &ClientArgs,
    question: impl AsyncFnOnce(Client) -> Result<u8, AnswerError>,
) -> Result<u8, Failure> {
    let dir = settings::dir(&args.dir).map_err(failure(exit::USAGE))?;
    wait(question(Client::new(settings::admin_socket(&dir))))?.map_err(|error| {
        let code = if matches!(error, AnswerError::Ask(_)) { exit::HAPILOT_SILENT } else { exit::FAILED };
        (code, error.into())
    })
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

fn check(health: &Health, json: bool) -> Result<u8, AnswerError> {
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
