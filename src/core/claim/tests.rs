//! What containers ask for, and how they are told what is wrong with it.

use super::*;

fn bare() -> Container {
    Container::running(ContainerId::new("0123456789abcdef").expect("valid"), "shop-1")
}

fn hosts_of(claims: &Claims) -> Vec<&str> {
    claims.claims.iter().map(|claim| claim.host.as_str()).collect()
}

/// Key and reason of the only rejection.
fn only_rejection(claims: &Claims) -> (&str, &str) {
    match &claims.rejections[..] {
        [only] => (&only.key, &only.reason),
        other => panic!("wanted one rejection, got {other:?}"),
    }
}

#[test]
fn a_container_without_a_host_is_not_ours() {
    let port_only = bare().with_env("VIRTUAL_PORT", "x").with_label("hapilot.weight", "x");
    for container in [bare(), port_only] {
        assert_eq!(claims(&container), Claims::default());
    }
}

#[test]
fn hosts_are_read_from_either_place_and_the_label_wins() {
    let cases: &[(Option<&str>, Option<&str>, &[&str])] = &[
        (None, Some("a.example"), &["a.example"]),
        (Some("a.example"), None, &["a.example"]),
        (Some("b.example"), Some("a.example"), &["b.example"]),
        (None, Some(" a.example ,\tb.example,"), &["a.example", "b.example"]),
        (None, Some(",,a.example, ,"), &["a.example"]),
        (None, Some("B.Example,a.example,b.example.,b.example"), &["b.example", "a.example"]),
        (None, Some("*.a.example,a.example"), &["*.a.example", "a.example"]),
        (
            None,
            Some("xn--mller-kva.example,under_score,localhost"),
            &["xn--mller-kva.example", "under_score", "localhost"],
        ),
    ];
    for (label, env, wanted) in cases {
        let mut container = bare();
        if let Some(label) = label {
            container = container.with_label("hapilot.host", label);
        }
        if let Some(env) = env {
            container = container.with_env("VIRTUAL_HOST", env);
        }
        let got = claims(&container);
        assert_eq!(hosts_of(&got), *wanted, "{label:?} {env:?}");
        assert_eq!(got.rejections, [], "{label:?} {env:?}");
    }
}

#[test]
fn a_bad_host_is_rejected_with_its_reason_and_takes_no_other_with_it() {
    let long = "a".repeat(300);
    let long_label = format!("{}.example", "a".repeat(64));
    let cases = [
        ("two words.example", "it has a blank inside"),
        ("a\tb.example", "it has a blank inside"),
        ("a.example; shutdown", "it has a blank inside"),
        ("a.example;b.example", "the character `;` is not allowed in a host"),
        ("a.example\nshow info", "it contains a line break"),
        ("a.example\r", "it contains a line break"),
        ("a\0.example", "it contains a NUL character"),
        ("a\u{1b}[31m.example", "it contains a control character"),
        ("a\u{85}.example", "it contains a control character"),
        ("\"a.example\"", "quotes are not allowed"),
        ("'a.example'", "quotes are not allowed"),
        ("m\u{fc}ller.example", "punycode"),
        ("\u{202e}example", "punycode"),
        (&long, "it has 300 characters, at most 253 are allowed"),
        (&long_label, "more than 63 characters"),
        ("http://a.example", "without `http://`; the port goes into VIRTUAL_PORT"),
        ("https://a.example:8080/", "without `http://`; the port goes into VIRTUAL_PORT"),
        ("a.example:8080", "write only the host; the port goes into VIRTUAL_PORT or hapilot.port"),
        ("a.example/path", "without a path"),
        ("~^www\\..*$", "regular expressions are not read"),
        ("a$b.example", "the character `$` is not allowed"),
        ("a..example", "empty label"),
        (".example", "empty label"),
        ("-a.example", "begins or ends with `-`"),
        ("www.example.*", "`*` may only stand as the whole first label"),
        ("*", "`*` may only stand as the whole first label"),
    ];
    for (bad, why) in cases {
        for key in ["VIRTUAL_HOST", "hapilot.host"] {
            let list = format!("good.example,{bad},also.example");
            let container = match key {
                "VIRTUAL_HOST" => bare().with_env(key, &list),
                _ => bare().with_label(key, &list),
            };
            let got = claims(&container);
            assert_eq!(hosts_of(&got), ["good.example", "also.example"], "{bad:?}");
            let (got_key, reason) = only_rejection(&got);
            assert_eq!(got_key, key);
            assert!(reason.contains(why), "{bad:?}: {reason}");
            assert!(reason.starts_with(&quoted(bad)), "{bad:?}: {reason}");
        }
    }
}

#[test]
fn an_empty_list_is_said() {
    for empty in ["", " ", ",", " , ,\t"] {
        let got = claims(&bare().with_env("VIRTUAL_HOST", empty));
        assert_eq!(got.claims, [], "{empty:?}");
        assert!(only_rejection(&got).1.starts_with("it is empty"), "{empty:?}");
    }
    // The label wins even so.
    let got = claims(&bare().with_env("VIRTUAL_HOST", "a.example").with_label("hapilot.host", ""));
    assert_eq!(hosts_of(&got), Vec::<&str>::new());
    assert_eq!(only_rejection(&got).0, "hapilot.host");
}

#[test]
fn a_list_has_its_limits() {
    let list = |n: usize| (0..n).map(|i| format!("h{i}.example")).collect::<Vec<_>>().join(",");
    assert_eq!(claims(&bare().with_env("VIRTUAL_HOST", &list(HOSTS_LIMIT))).rejections, []);
    let got = claims(&bare().with_env("VIRTUAL_HOST", &list(HOSTS_LIMIT + 7)));
    assert_eq!(hosts_of(&got).len(), HOSTS_LIMIT);
    assert_eq!(only_rejection(&got).1, "it lists 107 hosts, at most 100 are read; the last 7 are not served");
    let huge = list(100_000);
    let got = claims(&bare().with_label("hapilot.host", &huge));
    assert_eq!(got.claims, []);
    assert!(only_rejection(&got).1.starts_with(&format!("it has {} bytes", huge.len())));
    // A full list of the longest hosts fits.
    let longest = format!("{0}.{0}.{0}", "a".repeat(63));
    let all = (0..HOSTS_LIMIT).map(|i| format!("{i:0>61}.{longest}")).collect::<Vec<_>>().join(",");
    let got = claims(&bare().with_env("VIRTUAL_HOST", &all));
    assert_eq!((got.claims.len(), got.rejections.len()), (HOSTS_LIMIT, 0));
}

#[test]
fn the_port_is_the_one_said_else_the_only_exposed_else_80() {
    let cases = [
        (None, None, &[][..], 80),
        (None, None, &[3000], 3000),
        (None, None, &[443, 8080], 80),
        (None, None, &[0], 80),
        (None, Some("8080"), &[3000], 8080),
        (Some("1"), Some("8080"), &[3000], 1),
        (Some(" 65535 "), None, &[], 65535),
        (Some("9000"), Some("abc"), &[], 9000),
    ];
    for (label, env, exposed, wanted) in cases {
        let mut container = bare().with_env("VIRTUAL_HOST", "a.example");
        container.exposed_ports = exposed.to_vec();
        if let Some(label) = label {
            container = container.with_label("hapilot.port", label);
        }
        if let Some(env) = env {
            container = container.with_env("VIRTUAL_PORT", env);
        }
        let got = claims(&container);
        assert_eq!(got.rejections, []);
        assert_eq!(got.claims[0].port, wanted, "{label:?} {env:?} {exposed:?}");
    }
}

#[test]
fn a_bad_port_rejects_every_claim_of_the_container() {
    for bad in ["0", "70000", "65536", "abc", "", "+80", "-1", "80 80", "80/tcp", "8\n0", "\u{0663}", "1e3"] {
        for key in ["VIRTUAL_PORT", "hapilot.port"] {
            let container = bare().with_env("VIRTUAL_HOST", "a.example,b.example");
            let container = match key {
                "VIRTUAL_PORT" => container.with_env(key, bad),
                _ => container.with_label(key, bad),
            };
            let got = claims(&container);
            assert_eq!(got.claims, [], "{bad:?}");
            let (got_key, reason) = only_rejection(&got);
            assert_eq!(got_key, key);
            assert!(reason.contains("write a number from 1 to 65535"), "{reason}");
        }
    }
    // What is wrong besides is said too.
    let got = claims(&bare().with_env("VIRTUAL_HOST", "a b").with_env("VIRTUAL_PORT", "x"));
    let keys: Vec<&str> = got.rejections.iter().map(|rejection| &*rejection.key).collect();
    assert_eq!(keys, ["VIRTUAL_PORT", "VIRTUAL_HOST"]);
}

#[test]
fn a_bad_weight_is_reported_and_the_default_serves() {
    let of = |weight: &str| {
        claims(&bare().with_env("VIRTUAL_HOST", "a.example").with_label("hapilot.weight", weight))
    };
    for (good, wanted) in [("0", 0), ("256", 256), (" 7 ", 7)] {
        let got = of(good);
        assert_eq!((got.claims[0].weight, got.rejections.len()), (wanted, 0), "{good:?}");
    }
    for bad in ["257", "-1", "+1", "", "heavy", "99999999999999999999"] {
        let got = of(bad);
        assert_eq!(got.claims[0].weight, 1, "{bad:?}");
        let (key, reason) = only_rejection(&got);
        assert_eq!(key, "hapilot.weight");
        assert!(reason.contains("write a number from 0 to 256, until then it is 1"), "{reason}");
    }
}

#[test]
fn an_unknown_label_is_reported_and_stops_nothing() {
    let cases = [
        ("hapilot.hosts", "it is not a label that hapilot knows; did you mean `hapilot.host`?"),
        ("hapilot.Port", "it is not a label that hapilot knows; did you mean `hapilot.port`?"),
        ("hapilot.netwrok", "it is not a label that hapilot knows; did you mean `hapilot.network`?"),
        (
            "hapilot.colour",
            "it is not a label that hapilot knows; \
             it knows hapilot.check.interval, \
             hapilot.check.path, hapilot.check.status, hapilot.haproxy, hapilot.host, hapilot.network, hapilot.port, \
             hapilot.slowstart, hapilot.sticky, hapilot.weight",
        ),
    ];
    for (key, reason) in cases {
        let container = bare().with_label(key, "x");
        assert_eq!(only_rejection(&claims(&container)), (key, reason));
        let got = claims(&container.with_env("VIRTUAL_HOST", "a.example"));
        assert_eq!(hosts_of(&got), ["a.example"]);
        assert_eq!(only_rejection(&got), (key, reason));
    }
    // A label of somebody else is none of our business.
    assert_eq!(claims(&bare().with_label("traefik.enable", "true")), Claims::default());
}

#[test]
fn variables_of_nginx_proxy_that_are_not_read_are_named() {
    let container = bare().with_env("VIRTUAL_PATH", "/api").with_env("VIRTUAL_ENV", "/opt/venv");
    assert_eq!(claims(&container), Claims::default());
    let got = claims(&container.with_env("VIRTUAL_HOST", "a.example"));
    assert_eq!(hosts_of(&got), ["a.example"]);
    assert_eq!(only_rejection(&got).0, "VIRTUAL_PATH");
}

#[test]
fn a_rejection_is_printable_and_bounded() {
    let container = Container::running(bare().id, &"\u{1b}\n\u{e9}".repeat(1000));
    let wild = "\0\u{10ffff}".repeat(1000);
    let got = Rejection::new(&container, &wild, &wild);
    for (text, limit) in [(&got.container, 128), (&got.key, 64), (&got.reason, 300)] {
        assert!(text.len() <= limit && text.ends_with("..."), "{text}");
        assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text}");
    }
    assert!(got.container.starts_with("\\u{1b}\\n\\u{e9}"), "{}", got.container);
}

#[test]
fn printable_cuts_only_what_is_too_long() {
    let cases = [
        ("abcde", 5, "abcde"),
        ("abcdef", 5, "ab..."),
        ("a\n", 3, "a\\n"),
        ("ab\n", 3, "..."),
        ("abcd", 2, ".."),
        ("", 0, ""),
        ("a", 0, ""),
    ];
    for (text, limit, wanted) in cases {
        assert_eq!(printable(text, limit), wanted, "{text:?} {limit}");
    }
}

#[test]
fn a_server_is_named_after_its_container() {
    let cases = [
        ("shop-1", "0123456789abcdef", "shop-1-0123456789ab", "0123456789ab"),
        ("", "0123456789abcdef", "unnamed-0123456789ab", "0123456789ab"),
        ("a b;\n\u{e9}/c", "ff", "a_b____c-ff", "ff"),
        ("x", "a-b-c", "x-a_b_c", "a_b_c"),
    ];
    for (name, id, wanted, short) in cases {
        let server = server_name(&Container::running(ContainerId::new(id).expect("valid"), name));
        assert_eq!(server.as_str(), wanted);
        assert_eq!(id_of_server(&server), Some(short));
    }
    let long = Container::running(bare().id, &"n".repeat(300));
    assert_eq!(server_name(&long).as_str(), format!("{}-0123456789ab", "n".repeat(51)));
    for foreign in ["plain", "a-", "-a"] {
        assert_eq!(id_of_server(&ServerName::new(foreign).expect("valid")), None);
    }
}
