//! Where HAProxy is: on a host, or in which container.
//!
//! What lives here: what the operator said or what can be found out from the
//! containers' facts, and the rule by which one of them is HAProxy's. What it
//! must not know: what follows from it (`endpoint`), and how hapilot learns
//! about itself (`whereabouts`).
//!
//! A label is believed only where nothing better is known: any container may
//! carry one, and it must not be able to move HAProxy for all others.

use std::collections::BTreeSet;

use super::claim::printable;
use super::container::{Container, ContainerId, EngineName};
use super::label::HAPROXY;

/// Where HAProxy runs, as the operator said or as it is to be found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaproxyPlace {
    /// On the engine's host.
    Host,
    /// In the container of this name or id (or beginning of an id).
    Container(String),
    /// To be found out.
    Detect(Clues),
}

/// What hapilot knows of itself and of the HAProxy that it drives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clues {
    /// Identifiers (or the first twelve characters) that hapilot's own container
    /// may have, the surest first; none if it is in no container.
    pub own: Vec<String>,
    /// How hapilot reaches HAProxy.
    pub link: Link,
}

/// How hapilot reaches HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// It is hapilot's child: where the one is, the other is.
    #[default]
    Child,
    /// By a socket at this absolute path, as hapilot sees it.
    Socket(String),
    /// By TCP: it may be anywhere.
    Tcp,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is on the host.
    Host(String),
    /// It is in this container.
    In(ContainerId, String),
    /// This one stands for it as long as nothing better is known.
    Near(ContainerId, String),
    /// There is no telling; why.
    Nowhere(String),
}

/// What the answer depends on besides the containers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// The engines whose host is another than HAProxy's, should it be on a host.
    pub(super) elsewhere: &'a BTreeSet<EngineName>,
    /// HAProxy has answered: it runs, wherever it is.
    pub(super) answered: bool,
    /// Every engine has told what it has.
    pub(super) complete: bool,
}

/// The search for HAProxy's container.
#[derive(Debug)]
pub(super) struct Search {
    place: HaproxyPlace,
    /// Where the admin socket is on its host, as far as that is known.
    socket: Option<String>,
}

impl Search {
    pub(super) fn new(place: HaproxyPlace) -> Self {
        let socket = match &place {
            HaproxyPlace::Detect(Clues { own, link: Link::Socket(path) }) if own.is_empty() => {
                Some(path.clone())
            }
            _ => None,
        };
        Self { place, socket }
    }

    /// True if the container may be what is looked for, or help to find it.
    pub(super) fn concerns(&self, container: &Container) -> bool {
        match &self.place {
            HaproxyPlace::Host => false,
            HaproxyPlace::Container(word) => is_called(container, word),
            HaproxyPlace::Detect(clues) => {
                clues.own.iter().any(|clue| has_id(container, clue))
                    || is_labelled(container)
                    || self.socket.as_deref().is_some_and(|path| cover(container, path).is_some())
            }
        }
    }

    /// True as long as nothing can be found although there is something to find:
    /// the engine of that container may not have listed it yet.
    pub(super) fn is_open<'a>(&self, mut containers: impl Iterator<Item = &'a Container>) -> bool {
        match &self.place {
            HaproxyPlace::Host => false,
            HaproxyPlace::Container(word) => !containers.any(|container| is_called(container, word)),
            HaproxyPlace::Detect(clues) => {
                let own = |container: &Container| clues.own.iter().any(|clue| has_id(container, clue));
                !clues.own.is_empty() && !containers.any(own)
            }
        }
    }

    /// True if hapilot is in a container, to be found among these, and it is not
    /// there: an engine lists one only a moment after its process has begun.
    pub(super) fn lacks_own<'a>(&self, containers: impl Iterator<Item = &'a Container>) -> bool {
        matches!(self.place, HaproxyPlace::Detect(_)) && self.is_open(containers)
    }

    /// Looks at all containers.
    pub(super) fn find<'a>(
        &mut self,
        containers: impl Iterator<Item = &'a Container> + Clone,
        circumstances: Circumstances<'_>,
    ) -> Found {
        let clues = match &self.place {
            HaproxyPlace::Host => return Found::Host("as it was said".to_owned()),
            HaproxyPlace::Container(word) => {
                let called = containers.filter(|container| is_called(container, word));
                // Of several engines' the first; of one engine's there is only one.
                let first = called.min_by_key(|container| (&container.engine, &container.id));
                return match first {
                    Some(container) => Found::In(container.id.clone(), "as it was said".to_owned()),
                    None => Found::Nowhere(format!("no container `{}` runs", printable(word, 64))),
                };
            }
            HaproxyPlace::Detect(clues) => clues,
        };
        let own =
            clues.own.iter().find_map(|clue| containers.clone().find(|container| has_id(container, clue)));
        if own.is_none() && !clues.own.is_empty() && !circumstances.complete {
            return Found::Nowhere("hapilot's own container is not listed".to_owned());
        }
        match (&clues.link, own) {
            (Link::Child, Some(own)) => {
                Found::In(own.id.clone(), "it is hapilot's child, in hapilot's own container".to_owned())
            }
            (Link::Child, None) => {
                Found::Host("it is hapilot's child, and hapilot is in no container".to_owned())
            }
            (Link::Socket(path), own) => {
                self.socket = match own {
                    Some(own) => on_host(own, path),
                    None => Some(path.clone()),
                };
                self.by_socket(containers, own, circumstances)
            }
            (Link::Tcp, own) => match labelled(containers) {
                Some(container) => {
                    Found::In(container.id.clone(), format!("it is labelled `{}`", HAPROXY.key))
                }
                None => guess(own, "HAProxy is reached by TCP and no container is labelled"),
            },
        }
    }

    /// By whom has the directory of the admin socket, too.
    fn by_socket<'a>(
        &self,
        containers: impl Iterator<Item = &'a Container> + Clone,
        own: Option<&Container>,
        circumstances: Circumstances<'_>,
    ) -> Found {
        let Some(path) = &self.socket else {
            return guess(own, "the admin socket is on no volume");
        };
        let beside = |container: &&Container| match own {
            Some(own) => container.engine == own.engine && container.id != own.id,
            None => !circumstances.elsewhere.contains(&container.engine),
        };
        let sharers = containers
            .filter(beside)
            .filter_map(|container| Some((cover(container, path)?.len(), container)));
        // Whoever has all of the host's files has this one, too; who has just this
        // directory has it on purpose.
        let closest = sharers.clone().map(|(length, _)| length).max();
        let sharers = sharers.filter(|(length, _)| Some(*length) == closest).map(|(_, container)| container);
        let shown = printable(path, 100);
        let why = format!("it has the directory of the admin socket, {shown}");
        let only = sharers.clone().next().filter(|_| sharers.clone().count() == 1);
        match (only, labelled(sharers.clone())) {
            (Some(only), _) => Found::In(only.id.clone(), why),
            (None, Some(one)) => {
                Found::In(one.id.clone(), format!("{why} and is labelled `{}`", HAPROXY.key))
            }
            (None, None) if closest.is_some() => {
                let count = sharers.count();
                let why = format!(
                    "{count} containers have the directory of the admin socket ({shown}); label HAProxy's: {}=true",
                    HAPROXY.key
                );
                guess(own, &why)
            }
            (None, None) if own.is_none() || circumstances.answered => {
                Found::Host(format!("it has the admin socket ({shown}), and no container has its directory"))
            }
            (None, None) => guess(own, &format!("no other container has the admin socket ({shown}) yet")),
        }
    }
}

/// hapilot's own container, for want of anything better: HAProxy is near.
fn guess(own: Option<&Container>, why: &str) -> Found {
    match own {
        Some(own) => Found::Near(own.id.clone(), format!("{why}, so hapilot's own container stands for it")),
        None => Found::Host(format!("{why}, and hapilot is in no container")),
    }
}

/// The one that is labelled as HAProxy's; of several the oldest, so that no
/// newcomer can take its place.
fn labelled<'a>(containers: impl Iterator<Item = &'a Container>) -> Option<&'a Container> {
    let labelled = containers.filter(|container| is_labelled(container));
    labelled.min_by_key(|container| (container.started_at.unwrap_or(i64::MAX), &container.id))
}

fn is_labelled(container: &Container) -> bool {
    HAPROXY.said_by(container).is_some_and(|(_, value)| value == "true")
}

/// Of the container's directories in which it may write, the closest one that
/// holds this path of its host.
fn cover<'a>(container: &'a Container, path: &str) -> Option<&'a str> {
    let sources = container.mounts.iter().filter(|mount| mount.writable).map(|mount| &*mount.source);
    sources.filter(|source| below(path, source).is_some()).max_by_key(|source| source.len())
}

/// Where a path of the container is on its host; `None` if it is on no volume.
fn on_host(container: &Container, path: &str) -> Option<String> {
    let mounts = container.mounts.iter().filter_map(|mount| Some((mount, below(path, &mount.destination)?)));
    let (mount, rest) = mounts.max_by_key(|(mount, _)| mount.destination.len())?;
    Some(format!("{}{rest}", mount.source.trim_end_matches('/')))
}

/// What is left of a path below a directory, or of a mounted file itself.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// True if the operator's word for a container means this one.
fn is_called(container: &Container, word: &str) -> bool {
    &*container.name == word || has_id(container, word)
}

fn has_id(container: &Container, word: &str) -> bool {
    word.len() >= 12 && container.id.as_str().starts_with(word)
}

#[cfg(test)]
mod tests;
