//! The flags of a pair under keepalived.
//!
//! What lives here: names, help texts and variables, as in `cli`. What it must
//! not know: what a value means (`settings`).

#![allow(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "doc comments of flags are help texts, read in a terminal"
)]

use clap::Args;

use super::defaults;

/// Flags of `render --keepalived`, as typed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "For keepalived")]
pub struct KeepalivedArgs {
    /// Print keepalived's configuration for this machine of a pair instead
    #[arg(long)]
    pub keepalived: bool,

    /// The interface that carries the virtual address
    #[arg(long, value_name = "NAME", env = "HAPILOT_INTERFACE", hide_env_values = true)]
    pub interface: Option<String>,

    /// The address that visitors use, which one of the two machines holds: ADDRESS or ADDRESS/PREFIX; may be
    /// given several times
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HAPILOT_VIRTUAL_ADDRESS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub virtual_address: Vec<String>,

    /// This machine's own address on that interface
    #[arg(long, value_name = "ADDRESS", env = "HAPILOT_OWN_ADDRESS", hide_env_values = true)]
    pub own_address: Option<String>,

    /// The other machine's address
    #[arg(long, value_name = "ADDRESS", env = "HAPILOT_PEER_ADDRESS", hide_env_values = true)]
    pub peer_address: Option<String>,

    /// The pair's number on its network, 1 to 255, the same on both machines
    #[arg(long, value_name = "N", env = "HAPILOT_ROUTER_ID", hide_env_values = true, default_value = defaults::ROUTER_ID)]
    pub router_id: String,

    /// master: this machine holds the address whenever it is well; backup: when the other one is not
    #[arg(long, value_name = "master|backup", env = "HAPILOT_ROLE", hide_env_values = true)]
    pub role: Option<String>,

    /// hapilot's path on the machine that keepalived runs on [default: this program's]
    #[arg(long, value_name = "PATH", env = "HAPILOT_PROGRAM", hide_env_values = true)]
    pub hapilot: Option<String>,

    /// Instead of --role, on both machines: whoever holds the address keeps it as long as it is well
    #[arg(
        long,
        value_name = "BOOL",
        env = "HAPILOT_NOPREEMPT",
        hide_env_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub nopreempt: Option<String>,
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Directory of the running hapilot
    #[arg(long, value_name = "DIR", env = "HAPILOT_DIR", hide_env_values = true, default_value = defaults::DIR)]
    pub dir: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask HAProxy itself, whether hapilot runs or not, and only whether it serves
    #[arg(long)]
    pub haproxy: bool,
    /// Only whether HAProxy reaches any of its servers
    #[arg(long, conflicts_with = "haproxy")]
    pub servers: bool,
    /// With --haproxy: HAProxy's admin socket [default: <DIR>/admin.sock]
    #[arg(long, value_name = "SOCKET", env = "HAPILOT_RUNTIME_API", hide_env_values = true)]
    pub runtime_api: Option<String>,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", env = "HAPILOT_CHECK_TIMEOUT", hide_env_values = true, default_value = defaults::CHECK_TIMEOUT)]
    pub timeout: String,
}

/// Flags of `leave`.
#[derive(Debug, Clone, Args)]
pub struct LeaveArgs {
    /// Directory of hapilot
    #[arg(long, value_name = "DIR", env = "HAPILOT_DIR", hide_env_values = true, default_value = defaults::DIR)]
    pub dir: String,
    /// How long the partner is waited for
    #[arg(long, value_name = "DURATION", env = "HAPILOT_LEAVE_TIMEOUT", hide_env_values = true, default_value = defaults::LEAVE_TIMEOUT)]
    pub timeout: String,
}

/// Flags of `role`.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// master, backup, fault or stop
    #[arg(value_name = "ROLE")]
    pub role: String,
    /// Directory of the running hapilot
    #[arg(long, value_name = "DIR", env = "HAPILOT_DIR", hide_env_values = true, default_value = defaults::DIR)]
    pub dir: String,
}
