//! HAProxy's process, the wire to it, and who watches what comes over the wire.
//!
//! What lives here: connections in memory over which the model answers, what goes
//! wrong with them, and what must hold after every single command. What it must
//! not know: what the next command should be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hapilot::docker::EngineNews;
use hapilot::haproxy_config::QUARANTINE;
use hapilot::runtime_api::{Client, ClientError, Connect, RuntimeApiAddress, Timeouts};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::engine::Facts;
use crate::haproxy_model::{Haproxy, Network, Release};
use crate::sight::Sight;

/// What goes wrong after some more lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The connection is cut after so many bytes of the reply. With the flag
    /// HAProxy still carries out what it has read already.
    Cut(usize, bool),
    /// The reply is another text.
    Garbage,
    /// The reply has no end.
    Endless,
    /// The whole of HAProxy hangs for so many milliseconds, and goes on then: first
    /// with what it was sent before.
    Hang(u64),
    /// hapilot is killed; what it has sent is still carried out, or not.
    Kill(bool),
    /// HAProxy dies.
    Die,
}

/// Who listens, from when on.
#[derive(Debug, Default)]
pub struct Net {
    pub listeners: BTreeMap<SocketAddr, u64>,
    pub now: u64,
}

impl Network for Net {
    fn listens(&self, at: SocketAddr) -> bool {
        self.listeners.get(&at).is_some_and(|from| *from <= self.now)
    }
}

impl Net {
    /// Somebody lives there who does not listen yet. Nobody can know of one that has
    /// died a moment ago.
    pub fn is_to_listen(&self, at: SocketAddr) -> bool {
        self.listeners.get(&at).is_some_and(|from| *from > self.now)
    }
}

/// Everything behind hapilot's connection.
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
pub struct Stage {
    pub release: Release,
    pub haproxy: Option<Haproxy>,
    /// After a reload: the process that goes, to which open sessions still lead.
    old: Option<(Haproxy, CancellationToken)>,
    /// Ends with the process: so do its connections.
    life: CancellationToken,
    pub net: Net,
    begun: Instant,
    /// Connections are refused.
    pub refuses: bool,
    pub fault: Option<(u32, Fault)>,
    /// Until then it answers nobody.
    hung_until: Instant,
    /// Each reply takes a millisecond or not.
    pub slow: Option<Chance>,
    /// How many hapilots there were.
    lives: u32,
    /// The task to end when hapilot is killed.
    pub hapilot: Option<AbortHandle>,
    /// The news of this hapilot's life: the channel, and what was known after each.
    news: Option<(mpsc::Sender<EngineNews>, Vec<Arc<Facts>>)>,
    /// Hands changed something since the last settling: commands may then be odd.
    pub tampered: bool,
    /// What they did was not read since.
    pub unseen: bool,
    /// All of the state is being read.
    reading: bool,
    /// This hapilot knows HAProxy's version.
    pub has_met: bool,
    /// A command was refused, so the rest of its plan stands on nothing.
    refused: bool,
    /// Let in while there was nobody else: whether they listen was no matter.
    awaited: BTreeSet<String>,
    pub breaches: Vec<String>,
    journal: VecDeque<String>,
    /// All of it, unbounded.
    all: String,
    /// What was seen after the last command, if nothing else has happened since.
    last_sight: Option<(Arc<Facts>, Sight)>,
    pids: u32,
    /// When HAProxy gets round to what it has answered.
    dice: Chance,
}

/// Bytes that are on their way at most.
const PIPE: usize = 1 << 16;
/// For how long sessions of a server that left service may go on.
pub const SESSION_LIMIT: Duration = Duration::from_secs(60);
/// Longest journal.
const JOURNAL: usize = 120;

/// The stage, for all who have a part in it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Stage>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated HAProxy")
    }
}

impl Shared {
    pub fn new(release: Release, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Stage {
            release,
            haproxy: None,
            old: None,
            life: CancellationToken::new(),
            net: Net::default(),
            begun: Instant::now(),
            refuses: false,
            fault: None,
            hung_until: Instant::now(),
            slow: None,
            lives: 0,
            hapilot: None,
            news: None,
            tampered: false,
            unseen: false,
            reading: false,
            has_met: false,
            refused: false,
            awaited: BTreeSet::new(),
            breaches: Vec::new(),
            journal: VecDeque::new(),
            all: String::new(),
            last_sight: None,
            pids: 100,
            dice: Chance::new(seed),
        })))
    }

    pub fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap()
    }
}

impl Connect for Shared {
    fn connect(&self) -> BoxFuture<'static, Result<Client, ClientError>> {
        let shared = self.clone();
        Box::pin(async move {
            let address = RuntimeApiAddress::Unix("/simulated.sock".into());
            let (session, life) = {
                let stage = shared.stage();
                let Some(haproxy) = stage.haproxy.as_ref().filter(|_| !stage.refuses) else {
                    let source = std::io::ErrorKind::ConnectionRefused.into();
                    return Err(ClientError::Connect { address, source });
                };
                (Session { pid: haproxy.pid, life: stage.lives }, stage.life.child_token())
            };
            let (ours, theirs) = tokio::io::duplex(PIPE);
            tokio::spawn(serve(shared, theirs, session, life));
            Client::over(address, ours, Timeouts::default()).await
        })
    }
}

/// What HAProxy does about a line.
struct Reaction {
    reply: Vec<u8>,
    delay: Duration,
    then: Then,
}

/// What becomes of the session after a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes on.
    On,
    /// It is closed.
    Closed,
    /// It is closed; what was sent already is carried out all the same.
    ClosedUnheard,
    /// Nothing more is answered, nor carried out.
    Silence,
}

/// Who speaks to whom.
#[derive(Clone, Copy)]
struct Session {
    /// HAProxy's process.
    pid: u32,
    /// Which hapilot.
    life: u32,
}

/// One session of the Runtime API.
async fn serve(shared: Shared, stream: DuplexStream, open: Session, life: CancellationToken) {
    let (read, mut write) = tokio::io::split(stream);
    let mut received = BufReader::with_capacity(PIPE, read).lines();
    let session = async {
        let mut then = Then::On;
        let mut late = false;
        loop {
            // What HAProxy was sent before it hung may be of the past by now.
            late &= !received.get_ref().buffer().is_empty();
            let Ok(Some(command)) = received.next_line().await else { return };
            if then == Then::Silence {
                continue;
            }
            let hung_until = shared.stage().hung_until;
            late |= hung_until > Instant::now();
            sleep_until(hung_until).await;
            let Some(reaction) = shared.stage().react(&command, open, late) else { return };
            if then == Then::On {
                if !reaction.delay.is_zero() {
                    sleep(reaction.delay).await;
                }
                then = reaction.then;
                // Who asked may be gone: HAProxy carries out what it has read.
                if write.write_all(&reaction.reply).await.is_err() {
                    then = Then::ClosedUnheard;
                }
                if then == Then::ClosedUnheard {
                    let _ = write.shutdown().await;
                }
                if then == Then::Closed {
                    return;
                }
            }
        }
    };
    life.run_until_cancelled(session).await;
}

impl Stage {
    /// Milliseconds since the simulation began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    /// HAProxy does not answer for a while.
    pub fn is_hung(&self) -> bool {
        self.hung_until > Instant::now()
    }

    pub fn note(&mut self, what: impl fmt::Display) {
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
        }
        let now = self.now();
        let line = format!("{:>8}.{:03}  {what}", now / 1_000, now % 1_000);
        self.all.push_str(&line);
        self.journal.push_back(line);
    }

    /// All that happened, as a number.
    pub fn digest(&self, dir: &std::path::Path) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.all.replace(dir.to_str().unwrap_or_default(), "DIR").hash(&mut hasher);
        hasher.finish()
    }

    pub fn story(&self) -> String {
        self.journal.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// HAProxy's process ends.
    pub fn die(&mut self) {
        self.life.cancel();
        self.haproxy = None;
        if let Some((_, life)) = self.old.take() {
            life.cancel();
        }
    }

    /// As a reload: a new process takes the socket, and open sessions stay with the
    /// old one.
    pub fn reload(&mut self, dir: &std::path::Path) {
        let Some(mut going) = self.haproxy.take() else { return };
        self.note("HAProxy is reloaded");
        going.stopping = true;
        let life = std::mem::take(&mut self.life);
        self.start(dir);
        self.old = Some((going, life));
        (self.tampered, self.unseen, self.reading) = (true, true, false);
    }

    /// HAProxy starts: with the files, or without.
    pub fn start(&mut self, dir: &std::path::Path) {
        self.die();
        self.life = CancellationToken::new();
        self.pids += 1;
        let now = self.now();
        let started = Haproxy::start(self.release, self.pids, now, dir);
        self.note(format_args!(
            "HAProxy starts: {}",
            if started.is_ok() { "fine" } else { "it has no files" }
        ));
        self.haproxy = started.ok();
        self.last_sight = None;
    }

    /// Checks are made, and what was answered is carried out.
    pub fn pass_time(&mut self) {
        let now = self.now();
        if self.net.now != now {
            self.last_sight = None;
        }
        self.net.now = now;
        if let Some(haproxy) = &mut self.haproxy {
            haproxy.pass_time(self.net.now, &self.net);
        }
    }

    /// hapilot's new life: it has been told nothing.
    pub fn begin_life(&mut self, news: mpsc::Sender<EngineNews>, hapilot: AbortHandle) {
        self.news = Some((news, Vec::new()));
        self.lives += 1;
        self.has_met = false;
        self.hapilot = Some(hapilot);
    }

    /// hapilot was told something; this is all that it can know now.
    pub fn told(&mut self, facts: Facts) {
        if let Some((_, known)) = &mut self.news {
            known.push(Arc::new(facts));
        }
    }

    /// hapilot has taken all that it was told.
    pub fn is_heard(&self) -> bool {
        self.news.as_ref().is_some_and(|(news, _)| news.capacity() == news.max_capacity())
    }

    /// What hapilot knows at this moment.
    fn known(&self) -> Option<Arc<Facts>> {
        let (news, known) = self.news.as_ref()?;
        let unread = news.max_capacity() - news.capacity();
        known.get(known.len().checked_sub(unread + 1)?).cloned()
    }

    fn kill(&mut self) {
        self.note("hapilot is killed");
        if let Some(hapilot) = self.hapilot.take() {
            hapilot.abort();
        }
    }

    /// A line has arrived. `None` if nobody is there any more.
    fn react(&mut self, line: &str, session: Session, late: bool) -> Option<Reaction> {
        self.pass_time();
        if self.dice.one_in(3)
            && let Some(haproxy) = &mut self.haproxy
            && haproxy.settle()
        {
            self.last_sight = None;
        }
        let delay = match &mut self.slow {
            Some(chance) => Duration::from_millis(chance.below(2)),
            None => Duration::ZERO,
        };
        let fault = match &mut self.fault {
            Some((0, fault)) => {
                let fault = *fault;
                self.fault = None;
                Some(fault)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if let Some(fault) = fault {
            self.note(format_args!("{fault:?} at `{line}`"));
        }
        match fault {
            Some(Fault::Die) => {
                self.die();
                return None;
            }
            Some(Fault::Kill(carried_out)) => {
                self.kill();
                if !carried_out {
                    return None;
                }
            }
            _ => {}
        }
        // What a hapilot sent that is dead by now may be of the past, too.
        let late = late || self.hapilot.is_none() || session.life != self.lives;
        let mut reply = self.answer(line, session.pid, late)?.into_bytes();
        reply.extend_from_slice(b"\n> ");
        let mut then = Then::On;
        match fault {
            Some(Fault::Cut(bytes, carried_out)) => {
                reply.truncate(bytes.min(reply.len() - 1));
                then = if carried_out { Then::ClosedUnheard } else { Then::Closed };
            }
            Some(Fault::Garbage) => reply = b"%$ \xff\x1b[2J 17 apples\n\n> ".to_vec(),
            Some(Fault::Endless) => {
                reply.truncate(reply.len() - 3);
                then = Then::Silence;
            }
            Some(Fault::Hang(time)) => self.hung_until = Instant::now() + Duration::from_millis(time),
            _ => {}
        }
        Some(Reaction { reply, delay, then })
    }

    fn answer(&mut self, line: &str, pid: u32, late: bool) -> Option<String> {
        if line == "prompt" {
            return Some(String::new());
        }
        let only_asks = line.starts_with("show ");
        if let Some((old, _)) = self.old.as_mut().filter(|(old, _)| old.pid == pid) {
            return Some(old.command(line));
        }
        self.haproxy.as_ref()?;
        if only_asks {
            self.has_met = true;
            self.refused = false;
            if line == "show map" {
                self.reading = true;
            } else if line.ends_with("/names.map") && self.reading {
                (self.unseen, self.reading) = (false, false);
            }
            return self.haproxy.as_mut().map(|haproxy| haproxy.command(line));
        }
        let known = self.known().filter(|_| !late && !self.tampered && !self.refused);
        let haproxy = self.haproxy.as_mut()?;
        self.breaches.extend(may_crash(haproxy, line));
        self.breaches.extend(cuts_early(haproxy, line));
        let recent = self.last_sight.take();
        let before = known.as_ref().map(|facts| match recent {
            Some((known, sight)) if Arc::ptr_eq(&known, facts) => sight,
            _ => Sight::of(haproxy, facts, &self.net),
        });
        let server = line.strip_prefix("set server ");
        if let Some(server) = server.and_then(|rest| rest.strip_suffix(" health up")) {
            self.awaited.insert(server.to_owned());
        }
        let reply = haproxy.command(line);
        let after = known.as_ref().map(|facts| Sight::of(haproxy, facts, &self.net));
        self.refused |= matches!(reply.trim(), "No such server." | "No such backend.");
        let text = reply.trim();
        self.note(format_args!("  {line}{}{text}", if text.is_empty() { "" } else { "  → " }));
        if let (Some(before), Some(after)) = (before, after) {
            let lost: Vec<&String> = before.surely.difference(&after.serving).collect();
            if !lost.is_empty() {
                self.breaches.push(format!("{lost:?} lost the last ready server by `{line}`"));
            }
            // Who was let in while there was nobody else stays in, or drains and comes back.
            let fine = |server: &&String| before.taking.contains(*server) || self.awaited.contains(*server);
            let haste = after.hasty.iter().find(|server| !fine(server));
            if let Some(server) = haste {
                self.breaches.push(format!("`{line}` lets {server} in before it listens"));
            }
            let new = after.breaches.clone().without(&before.breaches, &BTreeSet::new());
            if !new.is_empty() {
                self.breaches.push(format!("`{line}` made {new:#?}"));
            }
            self.last_sight = known.map(|known| (known, after));
        }
        Some(reply)
    }

    /// A hand on the socket.
    pub fn hand(&mut self, line: &str) {
        let Some(haproxy) = &mut self.haproxy else { return };
        let reply = haproxy.command(line);
        haproxy.settle();
        self.last_sight = None;
        (self.tampered, self.unseen, self.reading) = (true, true, false);
        self.note(format_args!("by hand: {line} → {}", reply.trim()));
    }
}

/// Deletions after which Debian's 2.6.12 was seen to crash.
fn may_crash(haproxy: &Haproxy, line: &str) -> Option<String> {
    let at = line.strip_prefix("del server ").filter(|_| haproxy.release == Release::V2_6)?;
    let (_, server) =
        haproxy.servers().find(|(backend, server)| format!("{}/{}", backend.name, server.name) == at)?;
    let calm = Duration::from_millis(haproxy.now() - server.changed);
    // A difference of whole seconds may be a second short.
    let fine = !server.is_maint() || (server.sessions == 0 && calm + Duration::from_secs(1) > QUARANTINE);
    (!fine).then(|| format!("`{line}` {calm:?} after it left service, with {} sessions", server.sessions))
}

/// Sessions that are cut although their server left service only just now.
fn cuts_early(haproxy: &Haproxy, line: &str) -> Option<String> {
    let at = line.strip_prefix("shutdown sessions server ")?;
    let (_, server) =
        haproxy.servers().find(|(backend, server)| format!("{}/{}", backend.name, server.name) == at)?;
    let gone_for = Duration::from_millis(haproxy.now() - server.changed);
    let fine = server.is_maint() && gone_for + Duration::from_secs(1) > SESSION_LIMIT;
    (!fine).then(|| format!("`{line}` {gone_for:?} after it left service"))
}
