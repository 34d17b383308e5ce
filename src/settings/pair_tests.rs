//! What each flag of a pair takes and refuses.

use super::*;
use crate::cli::Values;

type Change = fn(&mut KeepalivedArgs);

fn args() -> KeepalivedArgs {
    KeepalivedArgs {
        keepalived: true,
        interface: Some("eth0".into()),
        virtual_address: vec!["10.0.0.10/24".into()],
        own_address: Some("10.0.0.11".into()),
        peer_address: Some("10.0.0.12".into()),
        role: Some("master".into()),
        ..KeepalivedArgs::default()
    }
}

fn read(change: impl FnOnce(&mut KeepalivedArgs)) -> Result<KeepalivedSettings, SettingsError> {
    let mut args = args();
    change(&mut args);
    let settings = Settings::new(&Values::default()).unwrap();
    KeepalivedSettings::new(&args, &settings, "/usr/bin/hapilot")
}

fn refused(change: impl FnOnce(&mut KeepalivedArgs)) -> String {
    read(change).unwrap_err().to_string()
}

#[test]
fn what_is_missing_is_named() {
    let cases: [(Change, &str); 6] = [
        (|a| a.interface = None, "--interface (or HAPILOT_INTERFACE) is needed with --keepalived: "),
        (|a| a.interface = Some(String::new()), "--interface "),
        (|a| a.virtual_address.clear(), "--virtual-address "),
        (|a| a.own_address = None, "--own-address "),
        (|a| a.peer_address = None, "--peer-address "),
        (|a| a.role = None, "--role (or HAPILOT_ROLE) is needed with --keepalived: "),
    ];
    for (change, begin) in cases {
        let message = refused(change);
        assert!(message.starts_with(begin), "{message}");
    }
}

#[test]
fn nothing_that_would_be_syntax_is_taken() {
    for text in ["eth 0", "eth0\n}", "eth0{", "\"", "#", "!", "eth0:1", "..", "aaaaaaaaaaaaaaaa", "é"] {
        let message = refused(|a| a.interface = Some(text.into()));
        assert!(message.starts_with("--interface (or HAPILOT_INTERFACE) can't be "), "{message}");
    }
    for text in [
        "10.0.0.1/24",
        "localhost",
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.18",
        "255.255.255.255",
        "1\n",
        "fe80::1%eth0",
    ] {
        assert!(read(|a| a.own_address = Some(text.into())).is_err(), "{text}");
        assert!(read(|a| a.peer_address = Some(text.into())).is_err(), "{text}");
    }
    for text in [
        "10.0.0.10/0",
        "10.0.0.10/33",
        "10.0.0.10/",
        "10.0.0.10/+4",
        "fd00::1/129",
        "10.0.0.10/24 dev eth0",
        "x",
    ] {
        assert!(read(|a| a.virtual_address = vec![text.into()]).is_err(), "{text}");
    }
    for text in ["0", "256", "x", "-1"] {
        assert!(read(|a| a.router_id = text.into()).is_err(), "{text}");
    }
    for text in ["hapilot", "/usr/bin/hap ilot", "/usr/bin/\"", "/x;y", "/"] {
        assert!(read(|a| a.hapilot = Some(text.into())).is_err(), "{text}");
    }
}

#[test]
fn addresses_must_fit_together() {
    let message = refused(|a| a.peer_address = a.own_address.clone());
    assert!(message.contains("this machine's own address"), "{message}");
    let message = refused(|a| a.peer_address = Some("fd00::12".into()));
    assert!(message.contains("of one family"), "{message}");
    for taken in ["10.0.0.11/24", "10.0.0.12"] {
        let message = refused(|a| a.virtual_address = vec![taken.into()]);
        assert!(message.contains("own address of one of the two"), "{message}");
    }
    let message = refused(|a| a.virtual_address.push("10.0.0.10".into()));
    assert!(message.contains("given twice"), "{message}");
    let message = refused(|a| a.virtual_address = (1..=21).map(|n| format!("10.0.1.{n}")).collect());
    assert!(message.contains("20 times"), "{message}");
    let message = refused(|a| a.virtual_address = vec!["fd00::10".into()]);
    assert!(message.contains("family"), "{message}");
}

#[test]
fn who_should_hold_the_address() {
    let preference = |role: Option<&str>, nopreempt: Option<&str>| {
        read(|a| {
            a.role = role.map(str::to_owned);
            a.nopreempt = nopreempt.map(str::to_owned);
        })
        .map(|settings| settings.preference)
    };
    assert_eq!(preference(Some("master"), None), Ok(Preference::Master));
    assert_eq!(preference(Some("backup"), Some("false")), Ok(Preference::Backup));
    assert_eq!(preference(None, Some("true")), Ok(Preference::Holder));
    assert!(preference(Some("master"), Some("true")).is_err());
    assert!(preference(Some("fault"), None).is_err());
    assert!(preference(None, Some("perhaps")).is_err());
}

#[test]
fn prefixes_and_sockets_have_their_defaults() {
    let settings =
        read(|a| a.virtual_address = vec!["10.0.0.10".into(), "fd00::10".into(), String::new()]).unwrap();
    let shown: Vec<String> = settings.virtual_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.10/32", "fd00::10/128"]);
    assert_eq!(settings.router_id, 51);
    assert_eq!(settings.runtime_api, "/run/hapilot/admin.sock");
    let attached = |socket: &str| {
        let values = Values { runtime_api: Some(socket.into()), ..Values::default() };
        KeepalivedSettings::new(&args(), &Settings::new(&values).unwrap(), "/h").map(|s| s.runtime_api)
    };
    assert_eq!(attached("tcp:[::1]:9999").unwrap(), "tcp:[::1]:9999");
    assert_eq!(attached("/run/x.sock").unwrap(), "/run/x.sock");
    assert!(attached("/run/\"x.sock").is_err());
}

#[test]
fn peers_come_in_pairs() {
    let read = |own: Option<&str>, other: Option<&str>| {
        let values =
            Values { own_peer: own.map(str::to_owned), peer: other.map(str::to_owned), ..Values::default() };
        Settings::new(&values).map(|settings| settings.peers).map_err(|error| error.to_string())
    };
    let peer = |name: &str, address: &str| Peer {
        name: ServerName::new(name).unwrap(),
        address: address.parse().unwrap(),
    };
    assert_eq!(read(None, Some("")), Ok(None));
    assert_eq!(
        read(Some("lb1=10.0.0.11:1024"), Some("lb2=[fd00::12]:1024")),
        Ok(Some([peer("lb1", "10.0.0.11:1024"), peer("lb2", "[fd00::12]:1024")]))
    );
    assert!(read(Some("lb1=10.0.0.11:1024"), None).unwrap_err().contains("so --peer (or HAPILOT_PEER)"));
    assert!(read(None, Some("lb1=10.0.0.11:1024")).unwrap_err().contains("so --own-peer "));
    for bad in [
        "lb1",
        "=10.0.0.1:1",
        "a b=10.0.0.1:1",
        "a\n=10.0.0.1:1",
        "a:b=10.0.0.1:1",
        "a=host:1",
        "a=10.0.0.1",
        "a=10.0.0.1:0",
        "a=0.0.0.0:1",
        "a=10.0.0.1:1 server x",
        "lb2=10.0.0.13:1024",
        "lb3=10.0.0.12:1024",
    ] {
        let refused = read(Some(bad), Some("lb2=10.0.0.12:1024"));
        assert!(refused.as_ref().is_err_and(|message| message.contains("can't be")), "{bad:?}: {refused:?}");
    }
}

fn check_within(timeout: &str) -> Result<CheckSettings, SettingsError> {
    CheckSettings::new(&CheckArgs {
        dir: String::new(),
        json: false,
        haproxy: false,
        servers: false,
        runtime_api: None,
        timeout: timeout.to_owned(),
    })
}

#[test]
fn what_check_asks() {
    let check = |change: fn(&mut CheckArgs)| {
        let mut args = CheckArgs {
            dir: String::new(),
            json: false,
            haproxy: false,
            servers: false,
            runtime_api: None,
            timeout: String::new(),
        };
        change(&mut args);
        CheckSettings::new(&args)
    };
    let plain = check(|_| {}).unwrap();
    assert_eq!((plain.haproxy, plain.timeout), (None, Duration::from_secs(10)));
    // The variable is that of `run`: without --haproxy it means nothing here.
    assert_eq!(check(|a| a.runtime_api = Some("x".into())).unwrap().haproxy, None);
    let own = check(|a| a.haproxy = true).unwrap().haproxy;
    assert_eq!(own, Some(RuntimeApi::Unix("/run/hapilot/admin.sock".into())));
    assert!(check(|a| (a.haproxy, a.runtime_api) = (true, Some("x".into()))).is_err());
    for timeout in ["0s", "49ms", "61s", "1"] {
        let message = check_within(timeout).unwrap_err().to_string();
        assert!(message.contains("HAPILOT_CHECK_TIMEOUT"), "{message}");
    }
    assert_eq!(check_within("1500ms").unwrap().timeout, Duration::from_millis(1500));
}
