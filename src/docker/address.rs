//! Where an engine is: `DOCKER_HOST` or `--docker`, and the TLS material.
//!
//! What lives here: parsing and validation. What it must not know: the
//! environment (the caller hands over the values) and how to connect.

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::http::uri::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::DockerError;

/// Port of a plain TCP address that names none.
const PLAIN_PORT: u16 = 2375;
/// Port of a TLS address that names none.
const TLS_PORT: u16 = 2376;

/// The address of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP without TLS, as `host:port`.
    Tcp(String),
    /// TCP with TLS and a client certificate.
    Tls {
        /// The `host:port`.
        authority: String,
        /// Where the certificates are.
        material: TlsMaterial,
    },
}

impl DockerAddress {
    /// The address that every Docker tool takes if none is given.
    pub const DEFAULT: &'static str = "unix:///var/run/docker.sock";

    /// Reads `unix:///path`, `/path`, `tcp://host[:port]`, `http://…` or
    /// `https://…`. With `tls` (`DOCKER_TLS_VERIFY` is set) `tcp://` means TLS;
    /// `https://` needs it. An error is [`DockerError::Address`].
    pub fn parse(text: &str, tls: Option<TlsMaterial>) -> Result<Self, DockerError> {
        let wrong = |reason: &str| DockerError::Address { text: text.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => ("unix", text),
            None => return Err(wrong("it begins with none of unix://, tcp://, http://, https://")),
        };
        match (scheme, tls) {
            ("unix", _) if !rest.starts_with('/') => {
                Err(wrong("a unix socket is named by its absolute path: unix:///var/run/docker.sock"))
            }
            // The limit of sun_path on Linux, less the final NUL.
            ("unix", _) if rest.len() > 107 => Err(wrong("the path of a unix socket has at most 107 bytes")),
            ("unix", _) if rest.contains('\0') => Err(wrong("a path contains no NUL")),
            ("unix", _) => Ok(Self::Unix(rest.into())),
            ("tcp" | "https", Some(material)) => {
                let authority = authority(rest, TLS_PORT).map_err(|reason| wrong(&reason))?;
                Ok(Self::Tls { authority, material })
            }
            ("tcp" | "http", _) => {
                authority(rest, PLAIN_PORT).map(Self::Tcp).map_err(|reason| wrong(&reason))
            }
            ("https", None) => {
                Err(wrong("https needs certificates: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"))
            }
            ("ssh" | "npipe" | "fd", _) => {
                Err(wrong("this scheme is not supported; use unix://, tcp://, http:// or https://"))
            }
            _ => Err(wrong("it begins with none of unix://, tcp://, http://, https://")),
        }
    }
}

impl fmt::Display for DockerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
            Self::Tls { authority, .. } => write!(f, "tcp://{authority} (TLS)"),
        }
    }
}

/// `host:port` out of what follows `scheme://`.
fn authority(rest: &str, default_port: u16) -> Result<String, String> {
    let text = rest.strip_suffix('/').unwrap_or(rest);
    if text.contains(['/', '?', '#']) {
        return Err("a path after host and port is not supported".into());
    }
    let authority: Authority = text.parse().map_err(|_| "host and port can't be read".to_owned())?;
    if text.contains('@') || authority.host().is_empty() {
        return Err("it must be host:port, without a user".into());
    }
    match (authority.port(), text.rsplit_once(':')) {
        (None, Some((host, _))) if !host.starts_with('[') || text.ends_with(':') => {
            Err("the port must be a number".into())
        }
        (None, _) => Ok(format!("{text}:{default_port}")),
        (Some(_), _) => match authority.port_u16() {
            Some(1..) => Ok(text.to_owned()),
            _ => Err("the port must be 1 to 65535".into()),
        },
    }
}

/// A directory with `ca.pem`, `cert.pem` and `key.pem`, as the Docker CLI
/// expects it in `DOCKER_CERT_PATH`. The files were readable and well formed
/// when it was made; they are read again at each connection, so that renewed
/// certificates are taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMaterial {
    dir: PathBuf,
}

impl TlsMaterial {
    /// Checks the three files in `dir`. An error is [`DockerError::Tls`].
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, DockerError> {
        let material = Self { dir: dir.into() };
        material.client_config()?;
        Ok(material)
    }

    /// The TLS settings made from the files: only servers vouched for by
    /// `ca.pem` are believed, and we show `cert.pem`.
    pub(super) fn client_config(&self) -> Result<rustls::ClientConfig, DockerError> {
        let ca = self.dir.join("ca.pem");
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&ca)? {
            roots.add(certificate).map_err(|error| unusable(&ca, &error))?;
        }
        let chain = certificates(&self.dir.join("cert.pem"))?;
        let key = self.dir.join("key.pem");
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable(&key, &error))?;
        rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&ca, &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private)
            .map_err(|error| unusable(&key, &error))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DockerError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no certificate"));
    }
    Ok(found)
}

fn unusable(path: &Path, reason: &dyn fmt::Display) -> DockerError {
    DockerError::Tls { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        DockerAddress::parse(text, None).map(|a| a.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn good_addresses() {
        for (text, wanted) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("/run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://engine", "tcp://engine:2375"),
            ("http://engine:80/", "tcp://engine:80"),
            ("tcp://[::1]:1234", "tcp://[::1]:1234"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn bad_addresses_say_why() {
        let long = format!("unix:///{}", "x".repeat(120));
        for (text, part) in [
            ("", "none of unix://"),
            ("docker.sock", "none of unix://"),
            ("ftp://x", "none of unix://"),
            ("unix://run/docker.sock", "absolute path"),
            ("unix://", "absolute path"),
            (&long, "107 bytes"),
            ("tcp://", "can't be read"),
            ("tcp://a b:1", "can't be read"),
            ("tcp://host:abc", "port"),
            ("tcp://host:", "port"),
            ("tcp://host:0", "1 to 65535"),
            ("tcp://host:70000", "port"),
            ("tcp://me@host:1", "without a user"),
            ("tcp://host:1/prefix", "a path"),
            ("https://host:1", "DOCKER_CERT_PATH"),
            ("ssh://host", "not supported"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn missing_certificates_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = TlsMaterial::new(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        std::fs::write(dir.path().join("ca.pem"), "no certificate").unwrap();
        let error = TlsMaterial::new(dir.path()).unwrap_err();
        assert!(error.to_string().contains("holds no certificate") && !error.is_retryable(), "{error}");
    }
}
