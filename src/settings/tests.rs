//! What each flag takes and refuses.

use super::*;

fn values() -> Values {
    Values::default()
}

fn refused(change: impl FnOnce(&mut Values)) -> String {
    let mut values = values();
    change(&mut values);
    Settings::new(&values).unwrap_err().to_string()
}

fn taken(change: impl FnOnce(&mut Values)) -> Settings {
    let mut values = values();
    change(&mut values);
    Settings::new(&values).unwrap()
}

#[test]
fn nothing_given_means_the_defaults() {
    let settings = Settings::new(&values()).unwrap();
    assert_eq!(
        settings,
        Settings {
            docker: vec![EngineSettings {
                name: EngineName::default(),
                engine: DockerEngine::Unix("/var/run/docker.sock".into()),
                address: None,
            }],
            haproxy: HaproxyMode::Spawn { program: "haproxy".into() },
            haproxy_container: HaproxyContainer::Detect,
            http: "0.0.0.0:80".parse().unwrap(),
            dir: dir("/run/hapilot").unwrap(),
            admin: None,
            pool_size: 1000,
            peers: None,
            resync: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            session_limit: Duration::from_secs(60),
            prefer_ipv6: false,
        }
    );
}

#[test]
fn engines() {
    let tls = taken(|v| {
        v.docker = vec!["tcp://10.0.0.5".into()];
        v.docker_tls_verify = Some("1".into());
        v.docker_cert_path = Some("/certs".into());
    });
    assert_eq!(
        tls.docker[0].engine,
        DockerEngine::Tls { host: "10.0.0.5".into(), port: 2376, certificates: "/certs".into() }
    );
    let plain = taken(|v| v.docker = vec!["tcp://[::1]:1234/".into()]);
    assert_eq!(plain.docker[0].engine, DockerEngine::Tcp { host: "::1".into(), port: 1234 });
    assert_eq!(plain.docker[0].engine.to_string(), "tcp://[::1]:1234");
    // The variables of TLS mean nothing to a unix socket, as with docker itself.
    let unix = taken(|v| {
        v.docker = vec!["unix:///x.sock".into()];
        v.docker_tls_verify = Some("1".into());
    });
    assert_eq!(unix.docker[0].engine.to_string(), "unix:///x.sock");
}

#[test]
fn bad_engines() {
    for url in ["ssh://x", "/var/run/docker.sock", "unix://x", "tcp://", "tcp://a:0", "tcp://a:70000"] {
        let message = refused(|v| v.docker = vec![url.into()]);
        assert!(message.starts_with(&format!("--docker (or DOCKER_HOST) can't be {url:?}: ")), "{message}");
    }
    for text in [
        "a b=unix:///x",
        "a/b=unix:///x",
        "=unix:///x",
        "a=unix:///x,address=here",
        "a=unix:///x,address=0.0.0.0",
        "a=unix:///x,port=1",
        "a=unix:///x,address=192.0.2.1,address=192.0.2.1",
        "a=unix:///x,tls=/c",
        "a=tcp://x,tls=",
        "tcp://x tcp://x",
        "a=tcp://x a=tcp://y",
    ] {
        let message = refused(|v| v.docker = vec![text.into()]);
        assert!(message.starts_with("--docker (or DOCKER_HOST) can't be \""), "{text}: {message}");
    }
    let no_certificates = refused(|v| {
        v.docker = vec!["tcp://a".into()];
        v.docker_tls_verify = Some("1".into());
    });
    assert!(no_certificates.contains("DOCKER_CERT_PATH"), "{no_certificates}");
    let unverified = refused(|v| {
        v.docker = vec!["tcp://a".into()];
        v.docker_cert_path = Some("/certs".into());
    });
    assert!(unverified.contains("DOCKER_TLS_VERIFY"), "{unverified}");
}

#[test]
fn several_engines() {
    let shown = |docker: &[&str]| -> Vec<String> {
        let settings = taken(|v| v.docker = docker.iter().map(|&text| text.into()).collect());
        let only = settings.docker.len() == 1;
        let show = |e: &EngineSettings| {
            let place = if e.is_elsewhere(only) { "elsewhere" } else { "here" };
            let tls = if let DockerEngine::Tls { certificates, .. } = &e.engine {
                format!(" {}", certificates.display())
            } else {
                String::new()
            };
            format!("{} {}{tls} {:?} {place}", e.name, e.engine, e.address)
        };
        settings.docker.iter().map(show).collect()
    };
    assert_eq!(shown(&["unix:///x"]), ["docker unix:///x None here"]);
    assert_eq!(shown(&["tcp://10.0.0.5"]), ["docker tcp://10.0.0.5:2375 None here"]);
    assert_eq!(shown(&["b=tcp://b,address=192.0.2.2"]), ["b tcp://b:2375 Some(192.0.2.2) elsewhere"]);
    let wanted = [
        "var-run-docker.sock unix:///var/run/docker.sock None here",
        "10.0.0.5 tcp://10.0.0.5:2375 None elsewhere",
        "10.0.0.5-1 tcp://10.0.0.5:1 None elsewhere",
        "--1-7 tcp://[::1]:7 None here",
        "b tcp://b:2376 /certs/b Some(2001:db8::2) elsewhere",
    ];
    let all = [
        "unix:///var/run/docker.sock",
        "tcp://10.0.0.5",
        "tcp://10.0.0.5:1",
        "tcp://[::1]:7",
        "b=tcp://b,tls=/certs/b,address=2001:db8::2",
    ];
    assert_eq!(shown(&all), wanted);
    assert_eq!(shown(&[&all.join(" ")]), wanted, "one variable");
}

#[test]
fn runtime_apis() {
    for (text, expected) in [
        ("/run/h.sock", RuntimeApi::Unix("/run/h.sock".into())),
        ("unix:/run/h.sock", RuntimeApi::Unix("/run/h.sock".into())),
        ("unix:///run/h.sock", RuntimeApi::Unix("/run/h.sock".into())),
        ("tcp:haproxy:9999", RuntimeApi::Tcp { host: "haproxy".into(), port: 9999 }),
        ("[::1]:9999", RuntimeApi::Tcp { host: "::1".into(), port: 9999 }),
    ] {
        let settings = taken(|v| v.runtime_api = Some(text.into()));
        assert_eq!(settings.haproxy, HaproxyMode::Attach { socket: expected }, "{text}");
    }
    for text in ["haproxy", "h.sock", "tcp:haproxy", "unix:h.sock", "[::1", "[zz]:1", "[::1]99"] {
        let message = refused(|v| v.runtime_api = Some(text.into()));
        assert!(message.starts_with("--runtime-api (or HAPILOT_RUNTIME_API) can't be"), "{message}");
    }
    let both = refused(|v| {
        v.runtime_api = Some("/a".into());
        v.haproxy = Some("haproxy".into());
    });
    assert!(both.contains("exclude each other"), "{both}");
}

#[test]
fn a_directory_is_safe_in_a_configuration() {
    for c in [' ', '\t', '\n', '"', '\'', '\\', ';', '#', ',', '(', ')', '{', '$', '%', '<', 'ä', '\0'] {
        let text = format!("/run/a{c}b");
        let message = refused(|v| v.dir.clone_from(&text));
        assert!(message.starts_with("--dir (or HAPILOT_DIR) can't be"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert!(refused(|v| v.dir = "run".into()).contains("absolute"));
    assert!(refused(|v| v.dir = "/".into()).contains("below"));
    assert_eq!(taken(|v| v.dir = "/a/b//".into()).dir.as_str(), "/a/b");
}

#[test]
fn a_directory_leaves_room_for_sockets() {
    let longest = format!("/{}", "a".repeat(DIR_LIMIT - 1));
    let settings = taken(|v| v.dir.clone_from(&longest));
    assert!(admin_socket(&settings.dir).as_os_str().len() <= HAPROXY_SOCKET_LIMIT);
    assert!(refused(|v| v.dir = format!("{longest}a")).contains("at most 80"));
}

#[test]
fn durations() {
    for (text, expected) in
        [("500ms", Duration::from_millis(500)), ("0s", Duration::ZERO), ("2m", Duration::from_secs(120))]
    {
        assert_eq!(taken(|v| v.grace = text.into()).grace, expected);
    }
    for text in
        ["30", "s", "-1s", "+1s", "1.5s", "1d", "2h", "99999999999999999999s", "18446744073709551615h", "1s "]
    {
        let message = refused(|v| v.grace = text.into());
        assert!(message.contains("0s to 1h"), "{message}");
    }
    assert!(refused(|v| v.resync = "999ms".into()).contains("1s to 24h"));
}

#[test]
fn the_rest() {
    for text in ["0.0.0.0", ":80", "localhost:80", "0.0.0.0:0", "0.0.0.0:70000", "[fe80::1%1]:80"] {
        assert!(refused(|v| v.http = text.into()).contains("[::]:80"));
    }
    for text in ["0", "100001", "-1", "+5", "many", "1e3"] {
        assert!(refused(|v| v.pool_size = text.into()).contains("from 1 to 100000"));
    }
    for text in ["-x", "a b", "a;b", "ä"] {
        assert!(refused(|v| v.haproxy_container = Some(text.into())).contains("container's name"));
    }
    for text in ["9000", "unix:x", "localhost:9000", "unix:/a b"] {
        assert!(refused(|v| v.admin = Some(text.into())).starts_with("--admin (or HAPILOT_ADMIN)"));
    }
    assert!(refused(|v| v.prefer_ipv6 = Some("maybe".into())).contains("true or false"));
    assert!(taken(|v| v.prefer_ipv6 = Some("yes".into())).prefer_ipv6);
    let cut = refused(|v| v.dir = "x".repeat(100_000));
    assert!(cut.len() < 400, "{} bytes", cut.len());
}

#[test]
fn log_settings() {
    let settings = |format: &str, level: &str| {
        LogSettings::new(&LogArgs { log_format: format.into(), log_level: level.into() })
    };
    assert_eq!(settings("", "").unwrap().filter, "info");
    assert_eq!(settings("json", "warn,hapilot::docker=debug").unwrap().format, LogFormat::Json);
    assert!(settings("xml", "").unwrap_err().to_string().contains("text or json"));
    for level in ["loud", "info,", "=debug", "hapilot=loud"] {
        assert!(settings("", level).unwrap_err().to_string().contains("HAPILOT_LOG"));
    }
}
