//! `--docker`: which engines there are.
//!
//! What lives here: the grammar of one engine, and names for those that got none.
//! What it must not know: how an engine is reached (`docker`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::parse::{self, SettingsError};
use super::{CERTIFICATES, DOCKER, DockerEngine, EngineSettings, TLS, given};
use crate::cli::{Values, defaults};
use crate::core::container::EngineName;

/// What one value says, as text.
struct Words<'a> {
    name: Option<&'a str>,
    url: &'a str,
    address: Option<&'a str>,
    tls: Option<&'a str>,
}

/// All engines. One value may hold several, separated by blanks: the variable is
/// only one text.
pub(super) fn engines(values: &Values) -> Result<Vec<EngineSettings>, SettingsError> {
    let words: Vec<&str> = values.docker.iter().flat_map(|value| value.split_ascii_whitespace()).collect();
    let words = if words.is_empty() { vec![defaults::DOCKER] } else { words };
    let only = words.len() == 1;
    let engines: Vec<EngineSettings> =
        words.into_iter().map(|word| engine(word, only, values)).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    match engines.iter().find(|engine| !names.insert(&engine.name)) {
        Some(twice) => Err(DOCKER
            .refuse(twice.name.as_str(), "two engines are called so; give each a name: --docker NAME=URL")),
        None => Ok(engines),
    }
}

fn engine(text: &str, only: bool, values: &Values) -> Result<EngineSettings, SettingsError> {
    let words = words(text)?;
    let address = words.address.map(|address| {
        let address = address.parse().ok().filter(|address: &std::net::IpAddr| !address.is_unspecified());
        address.ok_or_else(|| DOCKER.refuse(text, "`address=` takes the IP address of the engine's host"))
    });
    let engine = place(words.url, words.tls, values)?;
    let name = match words.name {
        Some(name) => EngineName::new(name).ok_or_else(|| {
            DOCKER.refuse(text, "a name has letters, digits and _ . - only, at most 64: --docker NAME=URL")
        })?,
        None if only => EngineName::default(),
        None => name_of(&engine),
    };
    Ok(EngineSettings { name, engine, address: address.transpose()? })
}

/// `[NAME=]URL[,address=IP][,tls=DIR]`.
fn words(text: &str) -> Result<Words<'_>, SettingsError> {
    let scheme = text.find("://").unwrap_or(text.len());
    let (name, rest) = match text.split_at(scheme).0.split_once('=') {
        Some((name, _)) => (Some(name), text.get(name.len() + 1..).unwrap_or_default()),
        None => (None, text),
    };
    let mut parts = rest.split(',');
    let mut words = Words { name, url: parts.next().unwrap_or_default(), address: None, tls: None };
    for part in parts {
        let known = match part.split_once('=') {
            Some(("address", value)) => words.address.replace(value).is_none(),
            Some(("tls", value)) => words.tls.replace(value).is_none(),
            _ => false,
        };
        if !known {
            return Err(
                DOCKER.refuse(text, "after the URL only `,address=IP` and `,tls=DIR` may follow, each once")
            );
        }
    }
    Ok(words)
}

fn place(url: &str, tls: Option<&str>, values: &Values) -> Result<DockerEngine, SettingsError> {
    if let Some(path) = url.strip_prefix("unix://") {
        if tls.is_some() {
            return Err(DOCKER.refuse(url, "a unix socket has no TLS"));
        }
        return Ok(DockerEngine::Unix(parse::socket_path(DOCKER, url, path)?));
    }
    let Some(address) = url.strip_prefix("tcp://") else {
        return Err(DOCKER.refuse(
            url,
            "it takes unix:///PATH or tcp://HOST:PORT, for example unix:///var/run/docker.sock",
        ));
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    // As the docker command has it: any text switches it on, even `0`.
    let verify = tls.is_some() || given(values.docker_tls_verify.as_ref()).is_some();
    let certificates = tls.or_else(|| given(values.docker_cert_path.as_ref()));
    let port = if verify { 2376 } else { 2375 };
    let (host, port) = parse::host_port(DOCKER, url, address, Some(port))?;
    match (verify, certificates) {
        (false, None) => Ok(DockerEngine::Tcp { host, port }),
        (true, Some("")) => {
            Err(DOCKER.refuse(url, "`tls=` takes the directory with ca.pem, cert.pem and key.pem"))
        }
        (true, Some(directory)) => {
            Ok(DockerEngine::Tls { host, port, certificates: PathBuf::from(directory) })
        }
        (true, None) => Err(SettingsError::Missing {
            flag: TLS,
            missing: CERTIFICATES,
            what: "the directory with ca.pem, cert.pem and key.pem",
        }),
        // Unverified TLS would look safe and be open to anyone in between.
        (false, Some(_)) => Err(SettingsError::Missing {
            flag: CERTIFICATES,
            missing: TLS,
            what: "1, because TLS without verification is not offered",
        }),
    }
}

/// A name for one of several engines that got none: where it is. The same on
/// every machine that is told the same.
fn name_of(engine: &DockerEngine) -> EngineName {
    let text = match engine {
        DockerEngine::Unix(path) => path.to_string_lossy().trim_start_matches('/').to_owned(),
        DockerEngine::Tcp { host, port: 2375 } | DockerEngine::Tls { host, port: 2376, .. } => host.clone(),
        DockerEngine::Tcp { host, port } | DockerEngine::Tls { host, port, .. } => format!("{host}-{port}"),
    };
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
    let name: String = text.chars().map(fits).collect();
    // What differs stands at the end.
    let name = name.get(name.len().saturating_sub(EngineName::LIMIT)..).unwrap_or_default();
    EngineName::new(name).unwrap_or_default()
}
