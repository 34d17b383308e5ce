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

use super::sticky::Sticky;

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

    /// The same, checked by HTTP: any status from 200 to 399 is fine.
    #[must_use]
    pub fn web_http() -> Self {
        Self("web-http".into())
    }

    /// The same, checked by HTTP: a host says which status it wants.
    #[must_use]
    pub fn web_status() -> Self {
        Self("web-status".into())
    }

    /// All classes that the start-up configuration has.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![Self::web(), Self::web_http(), Self::web_status()]
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

impl MapWord {
    /// `STATUS:HOST:/PATH`, for a host `*.domain` the domain. All three are words
    /// already, and short enough together (see `core::check`).
    #[must_use]
    pub(super) fn of_check(status: &str, host: &Host, path: &Self) -> Self {
        let host = host.as_str().trim_start_matches("*.");
        Self(format!("{status}:{host}:{path}").into())
    }

    /// `source` or `cookie`.
    #[must_use]
    pub(super) fn of_sticky(sticky: Sticky) -> Self {
        Self(sticky.as_str().into())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that could end a word, an argument or a command.
    const BREAKING: &str = "\0\t\n\r\u{b}\u{c}\u{7f}\u{85}\u{2028} ;\"'\\#<";

    fn longest(unit: &str, limit: usize) -> String {
        unit.repeat(limit)
    }

    #[test]
    fn no_name_holds_a_character_that_breaks_out() {
        for c in BREAKING.chars() {
            let text = format!("a{c}b");
            assert!(BackendName::new(&text).is_err(), "{text:?}");
            assert!(ServerName::new(&text).is_err(), "{text:?}");
            assert!(ClassName::new(&text).is_err(), "{text:?}");
            assert!(Host::new(&text).is_err(), "{text:?}");
            assert!(MapWord::new(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_have_limits() {
        assert!(BackendName::new(&longest("a", 300)).is_ok());
        assert_eq!(BackendName::new(&longest("a", 301)), Err(NameError::TooLong { length: 301, limit: 300 }));
        assert!(ServerName::new(&longest("a", 128)).is_ok());
        assert!(ServerName::new(&longest("a", 129)).is_err());
        assert!(ClassName::new(&longest("a", 32)).is_ok());
        assert!(ClassName::new(&longest("a", 33)).is_err());
        assert!(MapWord::new(&longest("a", 512)).is_ok());
        assert!(MapWord::new(&longest("a", 513)).is_err());
        assert_eq!(ServerName::new(""), Err(NameError::Empty));
    }

    #[test]
    fn a_host_is_folded_as_browsers_do() {
        let cases = [
            ("A.Example", "a.example"),
            ("a.example.", "a.example"),
            ("*.A.example", "*.a.example"),
            ("localhost", "localhost"),
            ("under_score.example", "under_score.example"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
            ("10.0.0.1", "10.0.0.1"),
        ];
        for (text, wanted) in cases {
            assert_eq!(Host::new(text).expect(text).as_str(), wanted);
        }
        let long = format!("{0}.{0}.{0}.{1}", longest("a", 63), longest("b", 61));
        assert_eq!(Host::new(&long).expect("253 characters").as_str().len(), Host::LIMIT);
        assert!(Host::new(&format!("{long}b")).is_err());
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let label = longest("a", 64);
        for bad in [
            "", ".", "..", "a..b", ".a", "a..", "-a", "a-.b", "*", "*.", "*.*.a", "a.*", "a*.b", "**.a",
            &label,
        ] {
            assert!(Host::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn our_own_names_can_be_no_class() {
        assert!(ClassName::new("hapilot").is_err());
        assert!(ClassName::new("hapilot2").is_ok());
        assert!(ClassName::new("Web").is_err());
        assert_eq!(ClassName::new("web"), Ok(ClassName::web()));
    }

    #[test]
    fn a_pool_name_is_known_as_one() {
        let name = BackendName::pool(&ClassName::web(), 7);
        assert_eq!(name.as_str(), "web:pool:0007");
        assert!(name.is_pool());
        assert_eq!(name.class(), Some("web"));
        assert_eq!(BackendName::new(name.as_str()), Ok(name));
    }

    #[test]
    fn a_backend_of_its_own_is_named_after_class_and_host() {
        let key = |host| BackendKey { class: ClassName::web(), host: Host::new(host).expect("valid") };
        assert_eq!(key("shop.example").own_name().as_str(), "web:shop.example");
        assert_eq!(key("*.shop.example").own_name().as_str(), "web::any.shop.example");
        assert_eq!(key("any.shop.example").own_name().as_str(), "web:any.shop.example");
        assert_eq!(key("*.shop.example").service().as_str(), "*.shop.example");
    }

    /// Few letters, so that two of them are often alike or nearly so.
    fn host() -> impl Strategy<Value = Host> {
        let close = r"(\*\.)?(any|pool|a|web)(\.(any|pool|a|0007|example)){0,3}";
        let wide = r"(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\.[a-z0-9]{1,20}){0,8}";
        prop_oneof![close, wide].prop_filter_map("too long", |text| Host::new(&text).ok())
    }

    fn class() -> impl Strategy<Value = ClassName> {
        let text = prop_oneof!["web|any|pool|hapilot|a", "[a-z0-9_-]{1,32}"];
        text.prop_filter_map("reserved", |text| ClassName::new(&text).ok())
    }

    fn key() -> impl Strategy<Value = BackendKey> {
        (class(), host()).prop_map(|(class, host)| BackendKey { class, host })
    }

    /// Any characters, control characters among them, and near misses.
    fn text() -> impl Strategy<Value = String> {
        let any = proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter);
        prop_oneof![any, r"[a-z.:*-]{1,20}[\x00-\x7f]?[a-z]{0,5}"]
    }

    proptest! {
        // A failing case becomes a row of a table above, not a file beside the source.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn own_names_are_valid_and_never_ours(key in key(), index in 0..10_000_usize) {
            let name = key.own_name();
            prop_assert_eq!(BackendName::new(name.as_str()), Ok(name.clone()));
            prop_assert!(!name.is_pool());
            prop_assert_ne!(&name, &BackendName::pool(&key.class, index));
            prop_assert!(!name.as_str().starts_with("hapilot:"));
            prop_assert_eq!(name.class(), Some(key.class.as_str()));
            let word = MapWord::from(&name);
            prop_assert_eq!(MapWord::new(word.as_str()), Ok(word));
            let service = key.service();
            prop_assert_eq!(MapWord::new(service.as_str()), Ok(service));
        }

        #[test]
        fn own_names_differ_exactly_where_the_keys_do(a in key(), b in key(), first in "any|\\*|pool|web") {
            prop_assert_eq!(a == b, a.own_name() == b.own_name());
            // And one that is nearly the same: another first label.
            let domain = a.host.as_str().split_once('.').map_or("example", |(_, domain)| domain);
            let near = BackendKey { host: Host::new(&format!("{first}.{domain}")).expect("as good"), ..a.clone() };
            prop_assert_eq!(a == near, a.own_name() == near.own_name());
        }

        #[test]
        fn a_host_is_read_back_as_itself(host in host()) {
            prop_assert_eq!(Host::new(host.as_str()), Ok(host));
        }

        #[test]
        fn any_text_is_a_name_of_the_alphabet_or_an_error(text in text()) {
            for name in [
                BackendName::new(&text).map(|name| name.as_str().to_owned()),
                ServerName::new(&text).map(|name| name.as_str().to_owned()),
                ClassName::new(&text).map(|name| name.as_str().to_owned()),
                MapWord::new(&text).map(|name| name.as_str().to_owned()),
                Host::new(&text).map(|name| name.as_str().to_owned()),
            ].into_iter().flatten() {
                prop_assert!(name.bytes().all(|b| b.is_ascii_graphic()), "{name:?}");
                prop_assert!(!name.contains(|c| BREAKING.contains(c)), "{name:?}");
            }
        }

        #[test]
        fn a_labelled_server_is_valid_and_keeps_its_identifier(name in text(), id in "[A-Za-z0-9_.]{1,40}") {
            let server = ServerName::labelled(&format!("x{name}"), &id);
            prop_assert_eq!(ServerName::new(server.as_str()), Ok(server.clone()));
            prop_assert!(server.as_str().len() <= 64);
            prop_assert_eq!(server.id_part(), Some(&id[..id.len().min(12)]));
        }
    }
}
