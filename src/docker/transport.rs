//! HTTP under bollard: kept connections, and the API version in every path.
//!
//! What lives here: how a request reaches the engine. What it must not know:
//! what is asked.
//!
//! Bollard's own transports open a connection per request, and bollard 0.21
//! drops the version from the path (`Url::join` with an absolute path), so
//! that an engine would answer in whatever version it likes best.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::BollardRequest;
use hyper::body::Incoming;
use hyper::http::uri::PathAndQuery;
use hyper::{Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyperlocal::UnixConnector;

use super::address::DockerAddress;
use super::error::DockerError;

/// A request's body as bollard builds it.
pub(super) type Body = <BollardRequest as BodyOf>::Body;

/// Names the body type of a request: bollard does not export it.
pub(super) trait BodyOf {
    /// The body.
    type Body;
}

impl<B> BodyOf for hyper::Request<B> {
    type Body = B;
}

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long the TCP handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Clone)]
enum Wire {
    Unix(Client<UnixConnector, Body>),
    Tcp(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

/// The connections to one engine. Clones share them.
#[derive(Clone)]
pub(super) struct Transport {
    wire: Wire,
    base: Arc<str>,
    prefix: Arc<OnceLock<String>>,
}

impl Transport {
    /// Prepares the connections; nothing is sent yet.
    pub(super) fn new(address: &DockerAddress, kept: usize) -> Result<Self, DockerError> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(kept).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(IDLE));
        let (wire, base) = match address {
            DockerAddress::Unix(path) => {
                let uri: Uri = hyperlocal::Uri::new(path, "/").into();
                (
                    Wire::Unix(builder.build(UnixConnector)),
                    format!("unix://{}", uri.host().unwrap_or_default()),
                )
            }
            DockerAddress::Tcp(authority) => (Wire::Tcp(builder.build(tcp)), format!("http://{authority}")),
            DockerAddress::Tls { authority, material } => {
                tcp.enforce_http(false);
                let connector = HttpsConnector::from((tcp, material.client_config()?));
                (Wire::Tls(builder.build(connector)), format!("https://{authority}"))
            }
        };
        Ok(Self { wire, base: base.into(), prefix: Arc::default() })
    }

    /// `scheme://authority` as bollard and [`Self::send`] want it.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// From now on every path begins with `/v{version}`.
    pub(super) fn set_version(&self, version: &str) {
        // Negotiated once per transport: a second value would be the same.
        let _ = self.prefix.set(format!("/v{version}"));
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        mut request: BollardRequest,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        if let Some(uri) = self.prefix.get().and_then(|prefix| prefixed(request.uri(), prefix)) {
            *request.uri_mut() = uri;
        }
        match &self.wire {
            Wire::Unix(client) => client.request(request).await,
            Wire::Tcp(client) => client.request(request).await,
            Wire::Tls(client) => client.request(request).await,
        }
    }
}

/// `uri` with `prefix` in front of its path; `None` if that is no URI.
fn prefixed(uri: &Uri, prefix: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_goes_in_front_of_the_path() {
        let uri = "unix://2f74/containers/json?all=1".parse().unwrap();
        assert_eq!(prefixed(&uri, "/v1.41").unwrap(), "unix://2f74/v1.41/containers/json?all=1");
    }
}
