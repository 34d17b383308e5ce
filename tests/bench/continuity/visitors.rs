//! Visitors: requests at a fixed rate, whatever becomes of those before.
//!
//! What lives here: an open loop, and HTTP/1.1 as a browser speaks it. What it
//! must not know: what happens to the containers meanwhile.
//!
//! A request's time counts from the moment it was due, not from the moment it
//! was sent: whoever comes while everything hangs waits, and that is counted.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

/// Between two requests: 200 a second.
const PERIOD: Duration = Duration::from_millis(5);
/// What a container takes for a slow request.
const SLOW_MS: u64 = 250;

/// The connection was closed before a byte of the answer had come.
pub(crate) const CUT: &str = "cut before the answer";

/// Every request of this program has its own number: it stands in the URL, and
/// so in HAProxy's log.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Whom they visit, and how.
#[derive(Clone)]
pub(crate) struct Visit {
    /// HAProxy.
    pub(crate) http: SocketAddr,
    /// The host. Its services are called so, some with `#` and more behind it.
    pub(crate) host: String,
    /// One of five requests takes the container a quarter of a second.
    pub(crate) slow: bool,
    /// After this a visitor has gone away.
    pub(crate) patience: Duration,
}

/// One request and what became of it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    /// POST, not GET.
    pub(crate) post: bool,
    pub(crate) slow: bool,
    /// Over a connection that was used before, if there was one.
    pub(crate) kept: bool,
    pub(crate) due: Instant,
    /// From when it was due to the end of the answer.
    pub(crate) took: Duration,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

impl Request {
    /// How long it took, without what the container itself takes for a slow one.
    pub(crate) fn waited(&self) -> Duration {
        let own = if self.slow { Duration::from_millis(SLOW_MS) } else { Duration::ZERO };
        self.took.saturating_sub(own)
    }
}

/// Visitors who come until they are sent away.
pub(crate) struct Visitors {
    enough: Arc<AtomicBool>,
    coming: JoinHandle<Vec<Request>>,
    runtime: Handle,
}

impl Visitors {
    /// The first comes at once.
    pub(crate) fn come(runtime: &Handle, visit: &Visit) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let coming = runtime.spawn(open_loop(visit.clone(), Arc::clone(&enough)));
        Self { enough, coming, runtime: runtime.clone() }
    }

    /// No more come; those who wait are waited for.
    pub(crate) fn leave(self) -> Vec<Request> {
        self.enough.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.coming).unwrap()
    }
}

async fn open_loop(visit: Visit, enough: Arc<AtomicBool>) -> Vec<Request> {
    let visit = Arc::new(visit);
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    let (mut requests, mut done) = (JoinSet::new(), Vec::new());
    let mut due = Instant::now();
    while !enough.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due.into()).await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        requests.spawn(request(Arc::clone(&visit), Arc::clone(&kept), number, due));
        while let Some(ended) = requests.try_join_next() {
            done.push(ended.unwrap());
        }
        due += PERIOD;
    }
    done.extend(requests.join_all().await);
    done
}

type Kept = Mutex<VecDeque<Connection>>;

/// Of twenty: ten over kept connections, four POST, four slow (two of them POST).
async fn request(visit: Arc<Visit>, kept: Arc<Kept>, number: u64, due: Instant) -> Request {
    let keep = number % 2 == 1;
    let post = matches!(number % 20, 3 | 6 | 11 | 14);
    let slow = visit.slow && matches!(number % 20, 6 | 9 | 11 | 18);
    let method = if post { "POST" } else { "GET" };
    let path = if slow { format!("/slow?ms={SLOW_MS}&n={number}") } else { format!("/?n={number}") };
    let end = if keep { "keep-alive" } else { "close" };
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: {end}\r\n\r\n",
        visit.host
    );
    let used = if keep { kept.lock().unwrap().pop_front() } else { None };
    let was_used = used.is_some();
    let exchange = async {
        let mut connection = match used {
            Some(connection) => connection,
            None => Connection::open(visit.http).await?,
        };
        let answer = connection.ask(text.as_bytes()).await?;
        Ok::<_, io::Error>((connection, answer))
    };
    let failure = match tokio::time::timeout_at((due + visit.patience).into(), exchange).await {
        Err(_) => Some(format!("no answer within {:?}", visit.patience)),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok((connection, answer))) => {
            let failure = answer.failure(&visit.host);
            if keep && failure.is_none() && !answer.last {
                kept.lock().unwrap().push_back(connection);
            }
            failure
        }
    };
    Request { number, post, slow, kept: was_used, due, took: due.elapsed(), failure }
}

struct Answer {
    status: u16,
    /// The connection ends after it.
    last: bool,
    body: String,
}

impl Answer {
    fn failure(&self, host: &str) -> Option<String> {
        if self.status != 200 {
            return Some(format!("status {}", self.status));
        }
        let service = self.body.lines().find_map(|line| line.strip_prefix("service: "));
        let own = service.and_then(|service| service.split('#').next()) == Some(host);
        (!own).then(|| format!("somebody else's answer: {:?}", self.body))
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        let cut = |what| io::Error::new(io::ErrorKind::UnexpectedEof, format!("cut {what}"));
        self.0.write_all(request).await?;
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT));
        }
        let status = line.get(9..12).and_then(|status| status.parse().ok());
        let (mut length, mut last) = (0, false);
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(cut("in the head"));
            }
            let lower = line.trim_end().to_ascii_lowercase();
            match lower.split_once(": ") {
                Some(("content-length", text)) => length = text.parse().map_err(io::Error::other)?,
                Some(("connection", text)) => last = text == "close",
                _ if lower.is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.map_err(|_| cut("in the body"))?;
        let status = status.ok_or_else(|| io::Error::other("not HTTP"))?;
        Ok(Answer { status, last, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
