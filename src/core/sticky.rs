//! How visitors of a host come back to the container that answered them first.
//!
//! What lives here: the label `hapilot.sticky` as a validated value, and what the
//! `sticky` map says. What it must not know: which containers share a host, and
//! who decides among them (`desired`); cookies and tables (the template).

use super::check::Refusal;
use super::claim::quoted;
use super::container::Container;
use super::label::STICKY;
use super::name::MapWord;

/// By what a visitor is known again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sticky {
    /// By his address, in a table that a pair of load balancers shares.
    Source,
    /// By a cookie that names the server: nothing is remembered here.
    Cookie,
}

impl Sticky {
    /// The value of the `sticky` map.
    #[must_use]
    pub fn word(self) -> MapWord {
        MapWord::of_sticky(self)
    }

    /// What is written in the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Cookie => "cookie",
        }
    }
}

/// What the container wants; `None` if every visit may go anywhere. What can't be
/// read is refused, and counts as nothing.
pub(super) fn sticky(container: &Container, refuse: &mut dyn FnMut(Refusal)) -> Option<Sticky> {
    let (key, text) = STICKY.said_by(container)?;
    let read = [Sticky::Source, Sticky::Cookie].into_iter().find(|sticky| sticky.as_str() == text);
    if read.is_none() {
        let reason =
            format!("{} is neither `source` nor `cookie`; until then visitors go anywhere", quoted(text));
        refuse((key, reason));
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::container::ContainerId;

    #[test]
    fn what_is_written_is_understood_or_refused() {
        for (text, wanted, refusals) in [
            ("source", Some(Sticky::Source), 0),
            (" cookie ", Some(Sticky::Cookie), 0),
            ("Cookie", None, 1),
            ("", None, 1),
            ("source\ncookie", None, 1),
        ] {
            let container = Container::running(ContainerId::new("ff").unwrap(), "shop");
            let mut refused = Vec::new();
            let container = container.with_label("hapilot.sticky", text);
            let read = sticky(&container, &mut |refusal| refused.push(refusal));
            assert_eq!((read, refused.len()), (wanted, refusals), "{text:?}");
            assert_eq!(read.map(|read| read.word().to_string()), wanted.map(|w| w.as_str().to_owned()));
        }
    }
}
