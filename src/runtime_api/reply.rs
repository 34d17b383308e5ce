//! What a reply to a command means.
//!
//! What lives here: for each class of commands, the texts with which HAProxy
//! says that it was done, that it is not possible yet, and that it was another
//! than expected; all recorded from 2.6, 3.0, 3.2 and 3.4. A text that stands
//! in none of them is a refusal. What it must not know: sockets, and what to do
//! about a refusal.

use crate::core::command::Command;

/// What came of one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// HAProxy did it.
    Done,
    /// Not yet: a later try may succeed, with nothing else changed. HAProxy's
    /// text.
    Deferred(String),
    /// HAProxy is not as it was remembered: what should be made is there
    /// already, or what should be changed or removed is not. HAProxy's text.
    AlreadySo(String),
    /// Everything else, known or unknown. HAProxy's text, control characters
    /// escaped, bounded in length.
    Refused(String),
}

impl Verdict {
    /// The kind, for metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Deferred(_) => "deferred",
            Self::AlreadySo(_) => "already_so",
            Self::Refused(_) => "refused",
        }
    }
}

/// A text, compared with the last line of a reply that is not empty.
enum Text {
    /// The whole line.
    Is(&'static str),
    /// The line begins so, and ends so.
    Between(&'static str, &'static str),
}

use Text::{Between, Is};

impl Text {
    fn matches(&self, line: &str) -> bool {
        match self {
            Is(text) => line == *text,
            Between(begin, end) => {
                line.len() >= begin.len() + end.len() && line.starts_with(begin) && line.ends_with(end)
            }
        }
    }
}

/// The known texts of a class of commands.
struct Texts {
    done: &'static [Text],
    deferred: &'static [Text],
    already_so: &'static [Text],
}

/// No text at all: how most commands say that they succeeded.
const SILENCE: Text = Is("");
const NO_BACKEND: Text = Is("No such backend.");
const NO_SERVER: Text = Is("No such server.");

const SILENT_SERVER: Texts = Texts { done: &[SILENCE], deferred: &[], already_so: &[NO_SERVER, NO_BACKEND] };

/// The one table of texts.
const fn texts(command: &Command) -> &'static Texts {
    match command {
        Command::AddBackend { .. } => &Texts {
            done: &[Is("New backend registered.")],
            deferred: &[],
            already_so: &[Between(
                "Error during backend creation : name is already used by other proxy 'backend ",
                "'.",
            )],
        },
        Command::PublishBackend { .. } => {
            &Texts { done: &[Is("Backend published.")], deferred: &[], already_so: &[NO_BACKEND] }
        }
        Command::UnpublishBackend { .. } => {
            &Texts { done: &[Is("Backend unpublished.")], deferred: &[], already_so: &[NO_BACKEND] }
        }
        Command::DelBackend { .. } => &Texts {
            done: &[Is("Backend deleted.")],
            deferred: &[
                Is("Only a backend without server can be deleted."),
                Is("Backend must be unpublished prior to its deletion."),
                Is("Backend still has attached streams on it."),
            ],
            already_so: &[NO_BACKEND],
        },
        Command::AddServer { .. } => &Texts {
            done: &[Is("New server registered.")],
            deferred: &[],
            already_so: &[Is("Already exists a server with the same name in backend."), NO_BACKEND],
        },
        Command::SetServerAddress { .. } => &Texts {
            done: &[
                // 3.0 and later.
                Is("nothing changed"),
                Between("IP changed from '", "' by 'stats socket command'"),
                Between("port changed from '", "' by 'stats socket command'"),
                // 2.6; the address may change and the port not.
                Between("IP changed from '", ", no need to change the port by 'stats socket command'"),
                Between("no need to change the addr, ", " by 'stats socket command'"),
            ],
            deferred: &[],
            already_so: &[NO_SERVER, NO_BACKEND],
        },
        Command::EnableHealth { .. }
        | Command::SetServerHealth { .. }
        | Command::SetServerState { .. }
        | Command::SetServerWeight { .. }
        | Command::ShutdownSessions { .. } => &SILENT_SERVER,
        Command::DelServer { .. } => &Texts {
            done: &[Is("Server deleted.")],
            deferred: &[Is("Server still has connections attached to it, cannot remove it.")],
            already_so: &[NO_SERVER, NO_BACKEND],
        },
        Command::AddMap { .. } => &Texts { done: &[SILENCE], deferred: &[], already_so: &[] },
        Command::SetMap { .. } => {
            &Texts { done: &[SILENCE], deferred: &[], already_so: &[Is("entry not found.")] }
        }
        Command::DelMap { .. } | Command::DelMapEntry { .. } => {
            &Texts { done: &[SILENCE], deferred: &[], already_so: &[Is("Key not found.")] }
        }
    }
}

/// Classifies the reply to a command. The last line that is not empty decides:
/// 3.4 puts what it logged in the meantime in front of it.
#[must_use]
pub fn classify(command: &Command, reply: &[u8]) -> Verdict {
    let texts = texts(command);
    if reply.iter().all(|&b| b == b'\n') && texts.done.iter().any(|text| text.matches("")) {
        return Verdict::Done;
    }
    let reply = String::from_utf8_lossy(reply);
    let line = reply.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let known = |texts: &[Text]| texts.iter().any(|text| text.matches(line));
    if known(texts.done) {
        Verdict::Done
    } else if known(texts.deferred) {
        Verdict::Deferred(line.to_owned())
    } else if known(texts.already_so) {
        Verdict::AlreadySo(line.to_owned())
    } else {
        Verdict::Refused(excerpt(&reply))
    }
}

/// A foreign text as it may stand in a message: one line, at most 300
/// characters, control characters escaped.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const LIMIT: usize = 300;
    let text = text.trim();
    let mut out: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LIMIT).is_some() {
        out.push('…');
    }
    if out.is_empty() {
        out.push_str("(an empty reply)");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::{Check, ServerRef};
    use crate::core::name::{BackendName, ClassName, MapWord, ServerName};
    use crate::core::state::{Admin, Map};

    fn commands() -> Vec<Command> {
        let backend = BackendName::new("web:a").unwrap();
        let server = ServerRef { backend: backend.clone(), server: ServerName::new("s").unwrap() };
        let word = || MapWord::new("w").unwrap();
        let address = "127.0.0.1:80".parse().unwrap();
        let map = Map::Hosts;
        vec![
            Command::AddBackend { backend: backend.clone(), class: ClassName::web() },
            Command::PublishBackend { backend: backend.clone() },
            Command::UnpublishBackend { backend: backend.clone() },
            Command::DelBackend { backend },
            Command::AddServer {
                server: server.clone(),
                address,
                weight: 1,
                check: Check::default(),
                slow_start_ms: None,
                pool_keywords: false,
            },
            Command::EnableHealth { server: server.clone() },
            Command::SetServerState { server: server.clone(), admin: Admin::Ready },
            Command::SetServerAddress { server: server.clone(), address },
            Command::SetServerWeight { server: server.clone(), weight: 1 },
            Command::ShutdownSessions { server: server.clone() },
            Command::DelServer { server },
            Command::AddMap { map, key: word(), value: word() },
            Command::SetMap { map, key: word(), value: word() },
            Command::DelMap { map, key: word() },
            Command::DelMapEntry { map, reference: 1 },
        ]
    }

    /// The outcome of one reply for each class, in the order of [`commands`]:
    /// `+` done, `~` deferred, `=` already so, `-` refused.
    fn outcomes(reply: &str) -> String {
        commands()
            .iter()
            .map(|command| match classify(command, reply.as_bytes()) {
                Verdict::Done => '+',
                Verdict::Deferred(_) => '~',
                Verdict::AlreadySo(_) => '=',
                Verdict::Refused(_) => '-',
            })
            .collect()
    }

    /// Every text as it was recorded, for every class: what is a success of one
    /// class is a refusal of another.
    #[test]
    fn each_class_knows_its_own_texts_only() {
        for (reply, wanted) in [
            //                                 backend servers map
            ("", "-----+++".to_owned() + "-++-++++"),
            ("New backend registered.\n", "+--------------".into()),
            ("Backend published.\n", "-+-------------".into()),
            ("Backend unpublished.\n", "--+------------".into()),
            ("Server deleted.\nBackend deleted.\n", "---+-----------".into()),
            ("Only a backend without server can be deleted.\n", "---~-----------".into()),
            ("Backend must be unpublished prior to its deletion.\n", "---~-----------".into()),
            (
                "This proxy cannot be removed at runtime due to other configuration elements pointing to it.\n",
                "---------------".into(),
            ),
            (
                "Error during backend creation : name is already used by other proxy 'backend web:a'.\n",
                "=--------------".into(),
            ),
            (
                "Error during backend creation : name is already used by other proxy 'frontend fe'.\n",
                "---------------".into(),
            ),
            ("New server registered.\n", "----+----------".into()),
            ("Already exists a server with the same name in backend.\n", "----=----------".into()),
            ("Server deleted.", "----------+----".into()),
            ("Server deleted.\n", "----------+----".into()),
            ("Server still has connections attached to it, cannot remove it.", "----------~----".into()),
            ("Only servers in maintenance mode can be deleted.\n", "---------------".into()),
            ("No such server.\n", "-----======----".into()),
            ("No such backend.\n", "-=========".to_owned() + "=----"),
            ("entry not found.\n", "------------=--".into()),
            ("Key not found.\n", "-------------==".into()),
            ("Unknown map identifier. Please use #<id> or <file>.\n", "---------------".into()),
            ("Permission denied\n", "---------------".into()),
            ("Unknown command: 'add', but maybe one of the following…\n", "---------------".into()),
            ("nothing changed\n", "-------+-------".into()),
            (
                "no need to change the addr, no need to change the port by 'stats socket command'\n",
                "-------+-------".into(),
            ),
            (
                "no need to change the addr, port changed from '1' to '2' by 'stats socket command'\n",
                "-------+-------".into(),
            ),
            (
                "IP changed from '127.0.0.1' to '127.0.0.2', no need to change the port by 'stats socket command'\n",
                "-------+-------".into(),
            ),
            (
                "IP changed from '127.0.0.1' to '127.0.0.2', port changed from '1' to '2' by 'stats socket command'\n",
                "-------+-------".into(),
            ),
            (
                "IP changed from '127.0.0.1' to '127.0.0.2' by 'stats socket command'\n",
                "-------+-------".into(),
            ),
            ("port changed from '7001' to '7999' by 'stats socket command'\n", "-------+-------".into()),
            ("Health check was not configured on this server, cannot enable.\n", "---------------".into()),
        ] {
            // The empty reply is a success where silence is: health, state,
            // weight, sessions and maps.
            let wanted = if reply.is_empty() { "-----++-++-++++".to_owned() } else { wanted };
            assert_eq!(outcomes(reply), wanted, "{reply:?}");
        }
    }

    #[test]
    fn what_was_logged_before_does_not_hide_the_verdict() {
        let reply = "Server web:a/s is going DOWN for maintenance. 0 active and 0 backup servers left. 0 sessions \
                     active, 0 requeued, 0 remaining in queue.\nbackend 'web:a' has no server available!\n\
                     Backend deleted.\n\n";
        assert_eq!(outcomes(reply), "---+-----------");
        assert_eq!(outcomes("Server deleted.\nsomething new\n"), "---------------");
    }

    #[test]
    fn a_refusal_shows_what_haproxy_said_on_one_bounded_line() {
        let reply = format!("a\u{1b}[31m\nb{}", "x".repeat(1_000));
        let Verdict::Refused(text) = classify(&commands()[0], reply.as_bytes()) else {
            panic!("not refused");
        };
        assert!(text.starts_with("a\\u{1b}[31m\\nb"), "{text}");
        assert!(text.chars().count() < 320, "{text}");
        assert_eq!(excerpt("\n\n"), "(an empty reply)");
        assert_eq!(classify(&commands()[0], b"\xff\n"), Verdict::Refused("\u{fffd}".into()));
    }
}
