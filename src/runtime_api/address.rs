//! Where the Runtime API listens.
//!
//! What lives here: the two forms of an address. What it must not know: how to
//! connect to it (`client`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a `stats socket` line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RuntimeApiAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`. Whoever reaches it rules HAProxy: meant for loopback and
    /// private networks.
    Tcp(String),
}

/// Why a text is not the address of a Runtime API.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("the address of HAProxy's Runtime API is empty; give a path or tcp:HOST:PORT")]
    Empty,
    /// A TCP address without a usable port.
    #[error("`{0}` is not HOST:PORT with a port from 1 to 65535")]
    Tcp(String),
}

impl RuntimeApiAddress {
    /// The path of a unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

/// `unix:PATH`, `unix://PATH` or a text with a `/` in it is a path,
/// `tcp:HOST:PORT` and `tcp://HOST:PORT` are TCP; without a prefix `HOST:PORT`
/// is TCP and everything else a path.
impl FromStr for RuntimeApiAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let after =
            |scheme: &str| text.strip_prefix(scheme).map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        if let Some(host) = after("tcp:") {
            return tcp(host).ok_or_else(|| AddressError::Tcp(host.to_owned()));
        }
        let path = after("unix:").unwrap_or(text);
        if path.is_empty() {
            return Err(AddressError::Empty);
        }
        if path.len() == text.len()
            && !text.contains('/')
            && let Some(address) = tcp(text)
        {
            return Ok(address);
        }
        Ok(Self::Unix(path.into()))
    }
}

fn tcp(text: &str) -> Option<RuntimeApiAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    (!host.is_empty() && port != 0).then(|| RuntimeApiAddress::Tcp(text.to_owned()))
}

impl fmt::Display for RuntimeApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed_so_that_it_reads_back() {
        for (text, wanted) in [
            ("/run/haproxy/admin.sock", RuntimeApiAddress::Unix("/run/haproxy/admin.sock".into())),
            ("unix:/run/a.sock", RuntimeApiAddress::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", RuntimeApiAddress::Unix("/run/a.sock".into())),
            ("run/a:80", RuntimeApiAddress::Unix("run/a:80".into())),
            ("admin.sock", RuntimeApiAddress::Unix("admin.sock".into())),
            ("127.0.0.1:9999", RuntimeApiAddress::Tcp("127.0.0.1:9999".into())),
            ("tcp://haproxy:9999", RuntimeApiAddress::Tcp("haproxy:9999".into())),
            ("tcp:[::1]:9999", RuntimeApiAddress::Tcp("[::1]:9999".into())),
        ] {
            let address: RuntimeApiAddress = text.parse().unwrap();
            assert_eq!(address, wanted, "{text}");
            assert_eq!(address.to_string().parse::<RuntimeApiAddress>().unwrap(), wanted);
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for text in ["", "unix:", "tcp:", "tcp:host", "tcp:host:0", "tcp::80", "tcp:host:70000"] {
            assert!(text.parse::<RuntimeApiAddress>().is_err(), "{text}");
        }
    }
}
