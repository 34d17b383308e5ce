//! The labels and variables that hapilot reads: the reference as a table.
//!
//! What lives here: which keys there are, what they say in words, and what is
//! answered to a key that isn't one of them. What it must not know: how a value
//! is understood (`claim`, `endpoint`).

use super::claim::Rejection;
use super::container::{Container, LABEL_PREFIX};

/// One row of the reference: a label, and the variable that means the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LabelDoc {
    /// The label's key.
    pub key: &'static str,
    /// The environment variable that is read where the label is absent.
    pub env: Option<&'static str>,
    /// What may be written.
    pub values: &'static str,
    /// What holds when it is absent.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

impl LabelDoc {
    /// What the container says, and where: the label, else the variable.
    #[must_use]
    pub fn said_by<'a>(&self, container: &'a Container) -> Option<(&'static str, &'a str)> {
        let variable = || self.env.and_then(|name| Some((name, container.env.get(name)?)));
        let (key, value) = container.labels.get(self.key).map(|value| (self.key, value)).or_else(variable)?;
        Some((key, trimmed(value)))
    }
}

/// How often HAProxy checks the container. Read by `check`, as the two below.
pub const CHECK_INTERVAL: LabelDoc = LabelDoc {
    key: "hapilot.check.interval",
    env: None,
    values: "a number with its unit, 100ms to 1h",
    default: "5s",
    meaning: "Between two of HAProxy's checks while the container answers; it is asked more often while it does not.",
};

/// What HAProxy asks.
pub const CHECK_PATH: LabelDoc = LabelDoc {
    key: "hapilot.check.path",
    env: None,
    values: "a path with its query, such as `/health`",
    default: "HAProxy only connects",
    meaning: "HAProxy checks the container with a GET of this path. The container of a host that runs longest \
              decides for all of them.",
};

/// What HAProxy wants to hear.
pub const CHECK_STATUS: LabelDoc = LabelDoc {
    key: "hapilot.check.status",
    env: None,
    values: "a status (`204`), a hundred of them (`2xx`) or `200-399`",
    default: "200-399",
    meaning: "The answer to the check that counts as good; needs `hapilot.check.path`, and HTTP/1.1 unless it is \
              200-399.",
};

/// That HAProxy runs in the container. Read by `place`.
pub const HAPROXY: LabelDoc = LabelDoc {
    key: "hapilot.haproxy",
    env: None,
    values: "true",
    default: "found out from the admin socket's volume, else from hapilot's own container",
    meaning: "HAProxy runs in this container. Believed where nothing better is known.",
};

/// Which hosts lead to the container.
pub const HOST: LabelDoc = LabelDoc {
    key: "hapilot.host",
    env: Some("VIRTUAL_HOST"),
    values: "one host or several, separated by commas; `*.example.org` for all below a domain; at most 100",
    default: "none: the container is not served",
    meaning: "The hosts that lead to the container. All containers with the same host share its load.",
};

/// On which network HAProxy reaches the container. Read by `endpoint`.
pub const NETWORK: LabelDoc = LabelDoc {
    key: "hapilot.network",
    env: None,
    values: "the name of a network of the container",
    default: "the first in name order that HAProxy reaches",
    meaning: "The network whose address HAProxy uses.",
};

/// On which port the container listens.
pub const PORT: LabelDoc = LabelDoc {
    key: "hapilot.port",
    env: Some("VIRTUAL_PORT"),
    values: "1 to 65535",
    default: "the only exposed port, else 80",
    meaning: "The TCP port on which the container listens. If it can't be read, none of the hosts is served.",
};

/// How slowly its share of the load grows.
pub const SLOW_START: LabelDoc = LabelDoc {
    key: "hapilot.slowstart",
    env: None,
    values: "a number with its unit, 1s to 1h",
    default: "its full share at once",
    meaning: "For so long after it has come up, the container's share of the load grows from little to all of it.",
};

/// How visitors come back to the same container.
pub const STICKY: LabelDoc = LabelDoc {
    key: "hapilot.sticky",
    env: None,
    values: "`source` or `cookie`",
    default: "every request may go to any container of the host",
    meaning: "Visitors come back to the container that answered them first: known by their address, or by a \
              cookie. The longest running container of the host decides.",
};

/// How much of a host's load the container takes.
pub const WEIGHT: LabelDoc = LabelDoc {
    key: "hapilot.weight",
    env: None,
    values: "0 to 256",
    default: "1",
    meaning: "The share of the load, relative to the other containers of the host; 0 takes no new visitors. \
              If it can't be read, the default is used and the label reported.",
};

/// Every label and variable that hapilot reads, by key. The README's reference
/// is checked against it.
pub const LABELS: &[LabelDoc] =
    &[CHECK_INTERVAL, CHECK_PATH, CHECK_STATUS, HAPROXY, HOST, NETWORK, PORT, SLOW_START, STICKY, WEIGHT];

/// Unknown labels that are reported one by one.
const UNKNOWN_LIMIT: usize = 10;

/// Without the blanks around it. A line break is no blank: it has no place in a
/// value, and whoever wrote one should hear of it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// A rejection for each label that begins like ours and is none of ours.
pub(super) fn unknown_labels(container: &Container) -> Vec<Rejection> {
    let unknown = || {
        let ours = container.labels.keys().filter(|key| key.starts_with(LABEL_PREFIX));
        ours.filter(|key| LABELS.iter().all(|doc| doc.key != key.as_str()))
    };
    let reject = |key: &str, end: &str| {
        Rejection::new(container, key, &format!("it is not a label that hapilot knows; {end}"))
    };
    let mut rejections: Vec<_> = unknown()
        .take(UNKNOWN_LIMIT)
        .map(|key| match closest(key) {
            Some(known) => reject(key, &format!("did you mean `{known}`?")),
            None => reject(
                key,
                &format!("it knows {}", LABELS.iter().map(|doc| doc.key).collect::<Vec<_>>().join(", ")),
            ),
        })
        .collect();
    let more = unknown().skip(UNKNOWN_LIMIT).count();
    if more > 0 {
        rejections.push(reject(&format!("{LABEL_PREFIX}*"), &format!("{more} more are like this")));
    }
    rejections
}

/// The known label that was probably meant: at most two letters away.
fn closest(key: &str) -> Option<&'static str> {
    // Longer than any of ours by more than that: no need to compare.
    let near = |doc: &&LabelDoc| key.len().abs_diff(doc.key.len()) <= 2;
    let distance = |doc: &LabelDoc| edit_distance(key.as_bytes(), doc.key.as_bytes());
    let candidates = LABELS.iter().filter(near).map(|doc| (distance(doc), doc.key));
    candidates.filter(|&(distance, _)| distance <= 2).min().map(|(_, key)| key)
}

/// How many bytes must be inserted, removed or replaced (Levenshtein).
fn edit_distance(from: &[u8], to: &[u8]) -> usize {
    // One row of the table: the distances of a prefix of `from` to each prefix of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(!a.eq_ignore_ascii_case(b))).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::container::{ContainerId, ENV_PREFIX};
    use super::*;

    #[test]
    fn many_unknown_labels_are_summed_up() {
        let container = Container::running(ContainerId::new("ff").expect("valid"), "shop");
        let container = (0..1000).fold(container, |c, i| c.with_label(&format!("hapilot.x{i:03}"), ""));
        let got = unknown_labels(&container);
        assert_eq!(got.len(), UNKNOWN_LIMIT + 1);
        let last = got.last().expect("one");
        assert_eq!(
            (&*last.key, &*last.reason),
            ("hapilot.*", "it is not a label that hapilot knows; 990 more are like this")
        );
    }

    #[test]
    fn the_table_of_labels_is_in_order_and_complete() {
        assert!(LABELS.is_sorted_by(|a, b| a.key < b.key));
        for doc in LABELS {
            assert!(doc.key.starts_with(LABEL_PREFIX));
            assert!(doc.env.is_none_or(|name| name.starts_with(ENV_PREFIX)));
            assert!(![doc.values, doc.default, doc.meaning].contains(&""));
        }
    }

    #[test]
    fn the_label_is_read_before_the_variable() {
        let container = Container::running(ContainerId::new("ff").expect("valid"), "shop");
        assert_eq!(HOST.said_by(&container), None);
        let container = container.with_env("VIRTUAL_HOST", " a ");
        assert_eq!(HOST.said_by(&container), Some(("VIRTUAL_HOST", "a")));
        let container = container.with_label("hapilot.host", "b");
        assert_eq!(HOST.said_by(&container), Some(("hapilot.host", "b")));
    }

    #[test]
    fn a_key_is_closest_to_the_one_that_was_meant() {
        let cases = [
            ("hapilot.hosts", Some("hapilot.host")),
            ("hapilot.HOST", Some("hapilot.host")),
            ("hapilot.post", Some("hapilot.host")),
            ("hapilot.prt", Some("hapilot.port")),
            ("hapilot.wieght", Some("hapilot.weight")),
            ("hapilot.", None),
            ("hapilot.path", None),
            ("hapilot.tls", None),
        ];
        for (key, wanted) in cases {
            assert_eq!(closest(key), wanted, "{key}");
        }
    }
}
