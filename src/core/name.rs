//! The validated names: the only texts that may reach HAProxy.
//!
//! What lives here: one type per kind of name, each with the rule of its
//! alphabet. What it must not know: where a name came from, and how it is
//! written on the wire.
//!
//! A value of one of these types holds no blank, no control byte, no quote, no
//! backslash and no `;`, so neither a Runtime API command nor a configuration
//! line can be broken out of, whoever chose the text.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was left to validate.
    #[error("it is empty")]
    Empty,
    /// The text is longer than the field allows.
    #[error("it has {length} characters, at most {limit} are allowed")]
    TooLong {
        /// Bytes in the offered text.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character outside the alphabet; shown escaped, so that it can be logged.
    #[error("the character {} is not allowed in it", .0.escape_debug())]
    Character(char),
    /// A rule of structure is broken (labels of a host, place of a `*`).
    #[error("{0}")]
    Structure(&'static str),
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// A backend's name in HAProxy: `[A-Za-z0-9._:-]`, 1 to 300 bytes
    /// (recorded: `add server` and `add backend` refuse anything else).
    BackendName
}
name_type! {
    /// A server's name in HAProxy: `[A-Za-z0-9._:-]`, 1 to 128 bytes.
    ServerName
}
name_type! {
    /// A class: the name of a `defaults` section, `[a-z0-9_-]`, 1 to 32 bytes.
    ClassName
}
name_type! {
    /// A host as visitors write it: lower case, no port; or `*.domain`.
    Host
}
name_type! {
    /// A key or a value of a map: printable ASCII without blank, quote,
    /// backslash, `;` and `#`; 1 to 512 bytes.
    MapWord
}

/// The alphabet that HAProxy permits in names of proxies and servers.
fn is_proxy_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-')
}

fn checked(text: &str, limit: usize, allowed: impl Fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        return Err(NameError::Character(c));
    }
    if text.len() > limit {
        return Err(NameError::TooLong { length: text.len(), limit });
    }
    Ok(())
}

/// Between a class and the rest of a backend's name. A host can't contain it,
/// so no container can choose the name of one of our own proxies.
pub const CLASS_SEPARATOR: char = ':';

/// What follows the class in the name of a backend of the pool.
const POOL_MARK: &str = ":pool:";

impl BackendName {
    /// Longest name accepted, in bytes.
    pub const LIMIT: usize = 300;

    /// Takes a text as a backend's name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text, Self::LIMIT, is_proxy_character)?;
        Ok(Self(text.into()))
    }

    /// The `index`th backend of a class's pool: `web:pool:0007`.
    #[must_use]
    pub fn pool(class: &ClassName, index: usize) -> Self {
        Self(format!("{class}{POOL_MARK}{index:04}").into())
    }

    /// True for a backend that stands empty in the start-up configuration and
    /// waits for a host (HAProxy below 3.4).
    #[must_use]
    pub fn is_pool(&self) -> bool {
        self.0.contains(POOL_MARK)
    }

    /// The class in front of the first `:`, if there is one.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        self.0.split_once(CLASS_SEPARATOR).map(|(class, _)| class)
    }
}

impl ServerName {
    /// Longest name accepted, in bytes.
    pub const LIMIT: usize = 128;

    /// Takes a text as a server's name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text, Self::LIMIT, is_proxy_character)?;
        Ok(Self(text.into()))
    }

    /// Longest name that hapilot itself gives, in bytes: it is read in logs.
    const GIVEN_LIMIT: usize = 64;

    /// `<name>-<id>` out of any two texts: what the alphabet lacks becomes `_`
    /// (in the identifier `-` too, so that the last `-` stands before it), the
    /// identifier is cut to 12 characters and the name so that all is at most
    /// 64 bytes.
    #[must_use]
    pub fn labelled(name: &str, id: &str) -> Self {
        let replaced = |c: char| if is_proxy_character(c) { c } else { '_' };
        let id: String = id.chars().take(12).map(|c| if c == '-' { '_' } else { replaced(c) }).collect();
        let room = Self::GIVEN_LIMIT - 1 - id.len();
        let name: String = name.chars().take(room).map(replaced).collect();
        Self(format!("{name}-{id}").into())
    }

    /// What follows the last `-`, if there is something on both sides of it.
    #[must_use]
    pub fn id_part(&self) -> Option<&str> {
        let (name, id) = self.0.rsplit_once('-')?;
        (!name.is_empty() && !id.is_empty()).then_some(id)
    }
}

impl ClassName {
    /// The class that nobody may define: what begins with `hapilot:` is ours.
    const RESERVED: &str = "hapilot";

    /// Takes a text as a class. `hapilot` is none: the backends of such a class
    /// could take the names of hapilot's own proxies.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')?;
        if text == Self::RESERVED {
            return Err(NameError::Structure("it is reserved for hapilot's own proxies"));
        }
        Ok(Self(text.into()))
    }

    /// The class of a container that names none: plain HTTP.
    #[must_use]
    pub fn web() -> Self {
        Self("web".into())
    }
}

impl MapWord {
    /// Longest key or value accepted, in bytes; far below the 14,000 bytes
    /// that a command line may have.
    pub const LIMIT: usize = 512;

    /// Takes a text as a key or value of a map.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text, Self::LIMIT, |c| {
            c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | ';' | '#' | '<')
        })?;
        Ok(Self(text.into()))
    }
}

impl From<&BackendName> for MapWord {
    fn from(name: &BackendName) -> Self {
        Self(name.0.clone())
    }
}

impl From<&Host> for MapWord {
    fn from(host: &Host) -> Self {
        Self(host.0.clone())
    }
}

impl Host {
    /// Longest host: RFC 1035, section 2.3.4.
    pub const LIMIT: usize = 253;

    /// Takes a text as a host. Upper case is folded and one trailing dot is
    /// dropped, as browsers do. Labels are 1 to 63 of `[a-z0-9_-]`, not
    /// beginning or ending in `-`; `*` may stand alone as the first label of
    /// several.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if !text.is_ascii() {
            return Err(NameError::Structure(
                "it has characters outside ASCII; write an international name in its punycode form (xn--...)",
            ));
        }
        checked(text, Self::LIMIT, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*'))?;
        let name = text.to_ascii_lowercase();
        let plain = match name.strip_prefix("*.") {
            Some(domain) => domain,
            None => &name,
        };
        for label in plain.split('.') {
            if label.is_empty() {
                return Err(NameError::Structure("it has an empty label (two dots, or a dot in front)"));
            }
            if label.len() > 63 {
                return Err(NameError::Structure("one of its labels has more than 63 characters"));
            }
            if label.contains('*') {
                return Err(NameError::Structure(
                    "`*` may only stand as the whole first label (*.example.org)",
                ));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::Structure("one of its labels begins or ends with `-`"));
            }
        }
        Ok(Self(name.into()))
    }

    /// True for `*.domain`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }
}

/// What a backend is for, independent of the backend that serves it: today a
/// class and a host (`web`, `shop.example`); paths and versions join later.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct BackendKey {
    /// The class the backend is made from.
    pub class: ClassName,
    /// The host that leads there.
    pub host: Host,
}

impl BackendKey {
    /// What logs and metrics call it, and the value of the `names` map.
    #[must_use]
    pub fn service(&self) -> MapWord {
        MapWord::from(&self.host)
    }

    /// The backend's own name where backends are made at run time (HAProxy
    /// 3.4+): `web:shop.example`. `*` is not in HAProxy's alphabet: it becomes
    /// `:any`, which no host can contain.
    #[must_use]
    pub fn own_name(&self) -> BackendName {
        let host = self.host.as_str();
        let text = match host.strip_prefix('*') {
            Some(domain) => format!("{}{CLASS_SEPARATOR}:any{domain}", self.class),
            None => format!("{}{CLASS_SEPARATOR}{host}", self.class),
        };
        BackendName(text.into())
    }
}
