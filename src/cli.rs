//! The command line: names, help texts and environment variables of every flag.
//!
//! What lives here: clap, and texts as they were typed. What it must not know:
//! what a value means (`settings`), and how anything is done. Every value is a
//! plain string, so that each error about a value is worded in one place.

#![allow(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "doc comments of flags are help texts, read in a terminal"
)]

use clap::{Args, Parser, Subcommand};

pub use pair::{CheckArgs, KeepalivedArgs, LeaveArgs, RoleArgs};

mod pair;

/// What holds where nothing is said.
pub mod defaults {
    /// `--docker`.
    pub const DOCKER: &str = "unix:///var/run/docker.sock";
    /// `--haproxy`: a name without `/` is looked up in PATH.
    pub const HAPROXY: &str = "haproxy";
    /// `--http`.
    pub const HTTP: &str = "0.0.0.0:80";
    /// `--dir`.
    pub const DIR: &str = "/run/hapilot";
    /// `--pool-size`: a thousand empty backends cost about 10 MiB in HAProxy.
    pub const POOL_SIZE: &str = "1000";
    /// `--resync`.
    pub const RESYNC: &str = "60s";
    /// `--grace`.
    pub const GRACE: &str = "30s";
    /// `--session-limit`.
    pub const SESSION_LIMIT: &str = "60s";
    /// `--log-format`.
    pub const LOG_FORMAT: &str = "text";
    /// `--log-level`.
    pub const LOG_LEVEL: &str = "info";
    /// `--router-id`.
    pub const ROUTER_ID: &str = "51";
    /// `check --timeout`.
    pub const CHECK_TIMEOUT: &str = "10s";
    /// `leave --timeout`: a partner that would rather not have it takes 5 s.
    pub const LEAVE_TIMEOUT: &str = "8s";
}

/// Exit codes. `2` is left out on purpose: Docker reserves it for health checks.
pub mod exit {
    /// Done; for `check`: all is well.
    pub const WELL: u8 = 0;
    /// `check`: HAProxy and Docker answer, but not everything is in place.
    /// `run`, `render`: it failed, the line on stderr says why.
    pub const FAILED: u8 = 1;
    /// `check`: HAProxy does not answer hapilot; with `--haproxy`: or is about to end.
    pub const HAPROXY_SILENT: u8 = 3;
    /// `status`, `plan`, `check`, `role`: hapilot does not answer on its socket.
    pub const HAPILOT_SILENT: u8 = 4;
    /// `check`: what hapilot knows is out of date (the Docker engine is lost).
    pub const STALE: u8 = 5;
    /// `check --servers`: HAProxy reaches none of its servers.
    pub const UNREACHED: u8 = 6;
    /// A flag or a variable is wrong (`EX_USAGE` of sysexits.h).
    pub const USAGE: u8 = 64;
    /// A second signal cut the shutdown short (128 + SIGINT, as shells count).
    pub const ABORTED: u8 = 130;
}

const EXAMPLES: &str = "\
Examples:
  hapilot run                                      HAProxy as hapilot's child, on port 80
  hapilot run --http 0.0.0.0:8080 --dir /tmp/hp    another port, another directory
  hapilot run --runtime-api /run/hapilot/admin.sock --haproxy-container edge
                                                   beside an HAProxy in the container `edge`
  docker run -e VIRTUAL_HOST=shop.example nginx    a container that is then served
  hapilot status                                   who is served where, and what is not

Every flag can be given as the environment variable shown with it; a flag beats
its variable, and an empty value counts as not given.";

const RUN_EXAMPLES: &str = "\
Examples:
  hapilot run
  hapilot run --docker tcp://10.0.0.5:2376 --docker-tls-verify --docker-cert-path /certs
  hapilot run --haproxy /usr/sbin/haproxy --http '[::]:80' --admin 127.0.0.1:9000
  hapilot run --runtime-api tcp:haproxy:9999 --haproxy-container edge

Signals: SIGTERM or SIGINT ends it softly within --grace, a second one at once;
SIGHUP reads all of HAProxy's state and Docker's list at once.
Exit status: 0 ended by a signal, 1 failed, 64 a flag or variable is wrong,
130 the end was cut short by a second signal.";

const ANSWER_EXIT: &str = "\
Exit status: 0 answered, 4 hapilot does not answer, 64 a flag or variable is wrong.";

const KEEPALIVED_EXAMPLE: &str = "\
On each machine of a pair, here the first of 10.0.0.11 and 10.0.0.12:
  hapilot render --keepalived --role master --interface eth0 --virtual-address 10.0.0.10/24
                 --own-address 10.0.0.11 --peer-address 10.0.0.12 > /etc/keepalived/keepalived.conf

Exit status: 0 printed, 1 failed, 4 a running hapilot does not answer, 64 a flag or variable is wrong.";

const ROLE_EXIT: &str = "\
keepalived calls it whenever the state of its instance changes; a hapilot that
does not run reads it when it starts.

Exit status: 0 told or kept, 1 failed, 4 a running hapilot does not answer, 64 a role or flag is wrong.";

const LEAVE_EXIT: &str = "\
keepalived stays, and does not take the address again unless the partner is at
fault; when it is started anew, all is as before.

Exit status: 0 this machine does not hold the address (any more), 1 its partner
did not take it in time, 64 a flag or variable is wrong.";

const CHECK_EXIT: &str = "\
Exit status, for health checks and keepalived:
  0   well: HAProxy and Docker answer, and nothing is left to do
  1   not converged: something is still to be done
  3   HAProxy does not answer
  4   hapilot does not answer
  5   stale: hapilot's knowledge is out of date (the Docker engine is lost)
  6   with --servers: HAProxy reaches none of its servers
  64  a flag or variable is wrong
With --haproxy only 0, 1, 3 and 64: HAProxy answers and is not about to end, or not.
With --servers only 0, 1, 4, 6 and 64: whatever else is not well.

Example, in a compose file:
  healthcheck: { test: [\"CMD\", \"hapilot\", \"check\"], interval: 5s }";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "hapilot",
    version,
    about = "Drives a running HAProxy from Docker events through the Runtime API, without a reload",
    after_help = EXAMPLES
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Watch Docker and keep HAProxy in step with it
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show hosts, backends and servers, and what is rejected or blocked
    #[command(after_help = ANSWER_EXIT)]
    Status(ClientArgs),
    /// Show the commands that would be sent to HAProxy now; sends nothing
    #[command(after_help = ANSWER_EXIT)]
    Plan(ClientArgs),
    /// Print HAProxy's start-up configuration: that of the hapilot that runs on --dir, else from the flags
    #[command(after_help = KEEPALIVED_EXAMPLE)]
    Render(RenderArgs),
    /// Exit with 0 only if HAProxy answers and everything is in place
    #[command(after_help = CHECK_EXIT)]
    Check(CheckArgs),
    /// Tell hapilot which of a pair this machine is now (keepalived calls it)
    #[command(after_help = ROLE_EXIT)]
    Role(RoleArgs),
    /// Give the virtual address to the partner, before keepalived is stopped here
    #[command(after_help = LEAVE_EXIT)]
    Leave(LeaveArgs),
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to run, and how.
    #[command(flatten)]
    pub values: Values,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// As for `run`.
    #[command(flatten)]
    pub values: Values,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// keepalived's configuration instead.
    #[command(flatten)]
    pub keepalived: KeepalivedArgs,
}

/// Flags that shape what hapilot does, as typed.
#[derive(Debug, Clone, Default, Args)]
pub struct Values {
    /// Docker engine: unix:///PATH or tcp://HOST:PORT; several: NAME=URL,address=IP,tls=DIR each, the last two
    /// where needed (the variable takes several, separated by blanks) [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "[NAME=]URL", env = "DOCKER_HOST", hide_env_values = true)]
    pub docker: Vec<String>,

    /// Talk TLS to a tcp:// engine and verify its certificate
    #[arg(
        long,
        value_name = "1",
        env = "DOCKER_TLS_VERIFY",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1"
    )]
    pub docker_tls_verify: Option<String>,

    /// Directory with ca.pem, cert.pem and key.pem for TLS
    #[arg(long, value_name = "DIR", env = "DOCKER_CERT_PATH", hide_env_values = true)]
    pub docker_cert_path: Option<String>,

    /// Start this HAProxy as a child [default: haproxy, from PATH]
    #[arg(long, value_name = "PATH", env = "HAPILOT_HAPROXY", hide_env_values = true)]
    pub haproxy: Option<String>,

    /// Attach to a running HAProxy instead: /PATH of its admin socket, or tcp:HOST:PORT
    #[arg(long, value_name = "SOCKET", env = "HAPILOT_RUNTIME_API", hide_env_values = true)]
    pub runtime_api: Option<String>,

    /// The container HAProxy runs in, or `host`: its networks decide which address of a container is used
    /// [default: found out, `hapilot status` says what]
    #[arg(long, value_name = "NAME", env = "HAPILOT_HAPROXY_CONTAINER", hide_env_values = true)]
    pub haproxy_container: Option<String>,

    /// Where HAProxy listens for HTTP
    #[arg(long, value_name = "ADDR:PORT", env = "HAPILOT_HTTP", hide_env_values = true, default_value = defaults::HTTP)]
    pub http: String,

    /// Directory for all that hapilot writes: configuration, maps, sockets
    #[arg(long, value_name = "DIR", env = "HAPILOT_DIR", hide_env_values = true, default_value = defaults::DIR)]
    pub dir: String,

    /// Serve /live, /ready, /status and /metrics here too: ADDR:PORT or unix:/PATH [default: only <DIR>/hapilot.sock]
    #[arg(long, value_name = "ADDRESS", env = "HAPILOT_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,

    /// Empty backends kept for new hosts on HAProxy below 3.4
    #[arg(long, value_name = "N", env = "HAPILOT_POOL_SIZE", hide_env_values = true, default_value = defaults::POOL_SIZE)]
    pub pool_size: String,

    /// This machine of a pair, as its HAProxy is called and listens for the other one's: sticky visitors come back to
    /// the same container after a failover; needs --peer
    #[arg(long, value_name = "NAME=ADDR:PORT", env = "HAPILOT_OWN_PEER", hide_env_values = true)]
    pub own_peer: Option<String>,

    /// The other machine of the pair
    #[arg(long, value_name = "NAME=ADDR:PORT", env = "HAPILOT_PEER", hide_env_values = true)]
    pub peer: Option<String>,

    /// How often everything is looked at anew without an event
    #[arg(long, value_name = "DURATION", env = "HAPILOT_RESYNC", hide_env_values = true, default_value = defaults::RESYNC)]
    pub resync: String,

    /// How long requests in flight may take when HAProxy is stopped
    #[arg(long, value_name = "DURATION", env = "HAPILOT_GRACE", hide_env_values = true, default_value = defaults::GRACE)]
    pub grace: String,

    /// How long sessions of a server may go on after it has left service
    #[arg(long, value_name = "DURATION", env = "HAPILOT_SESSION_LIMIT", hide_env_values = true, default_value = defaults::SESSION_LIMIT)]
    pub session_limit: String,

    /// Use a container's IPv6 address where it has one
    #[arg(
        long,
        value_name = "BOOL",
        env = "HAPILOT_PREFER_IPV6",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub prefer_ipv6: Option<String>,
}

/// Flags of logging, as typed.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// text: one readable line per event; json: one object per event
    #[arg(long, value_name = "text|json", env = "HAPILOT_LOG_FORMAT", hide_env_values = true, default_value = defaults::LOG_FORMAT)]
    pub log_format: String,

    /// error, warn, info, debug, trace, off; or per module: info,hapilot::docker=debug
    #[arg(long, value_name = "LEVEL", env = "HAPILOT_LOG", hide_env_values = true, default_value = defaults::LOG_LEVEL)]
    pub log_level: String,
}

/// Flags of the subcommands that ask a running hapilot.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Directory of the running hapilot
    #[arg(long, value_name = "DIR", env = "HAPILOT_DIR", hide_env_values = true, default_value = defaults::DIR)]
    pub dir: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    /// Reads the command line. Help, the version and a mistake are printed; the
    /// error is the exit code that goes with them.
    pub fn read() -> Result<Self, u8> {
        Self::try_parse().map_err(|message| {
            // Where the message can't be printed, the exit code still tells.
            let _ = message.print();
            if message.use_stderr() { exit::USAGE } else { exit::WELL }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable() {
        let command = Cli::command();
        for action in command.get_subcommands() {
            for arg in action.get_arguments() {
                let id = arg.get_id().as_str();
                // What says what to do is no setting.
                let action_itself = matches!(
                    (action.get_name(), id),
                    ("check", "haproxy" | "servers") | ("render", "keepalived") | ("role", "role")
                );
                if !action_itself && !matches!(id, "json" | "help" | "version") {
                    assert!(arg.get_env().is_some(), "{} of {} has no variable", id, action.get_name());
                }
            }
        }
    }
}
