//! Files on real file systems: full, read-only, unchanged.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::core::state::Map;

use super::*;

fn config(cfg: &str, hosts: &str) -> RenderedConfig {
    let maps = BTreeMap::from([(Map::Hosts, hosts.to_owned()), (Map::Names, String::new())]);
    RenderedConfig { haproxy_cfg: cfg.to_owned(), maps }
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in [dir.to_owned(), dir.join(MAPS_DIR)] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn expected(cfg: &str, hosts: &str) -> BTreeMap<String, String> {
    [("haproxy.cfg", cfg), ("maps/hosts.map", hosts), ("maps/names.map", "")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}

#[test]
fn writes_all_files_and_replaces_only_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let inode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().ino();
    let path = install(&config("one", "a b\n"), dir.path(), None).unwrap();
    assert_eq!(path, dir.path().join("haproxy.cfg"));
    assert_eq!(files(dir.path()), expected("one", "a b\n"));

    let before = (inode("haproxy.cfg"), inode("maps/hosts.map"), inode("maps/names.map"));
    install(&config("one", "a c\n"), dir.path(), None).unwrap();
    assert_eq!(files(dir.path()), expected("one", "a c\n"));
    assert_eq!((inode("haproxy.cfg"), inode("maps/names.map")), (before.0, before.2));
    assert_ne!(inode("maps/hosts.map"), before.1);
}

#[test]
fn what_haproxy_refuses_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    install(&config("one", "a b\n"), dir.path(), None).unwrap();
    let error = install(&config("two", "a c\n"), dir.path(), Some(Path::new("/bin/false"))).unwrap_err();
    assert!(matches!(error, InstallError::Check(CheckError::Refused { .. })), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(files(dir.path()), expected("one", "a b\n"));
}

#[test]
fn leftovers_of_a_kill_are_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".haproxy.cfg.new"), "half of a configu").unwrap();
    install(&config("one", ""), dir.path(), None).unwrap();
    assert_eq!(files(dir.path()), expected("one", ""));
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("maps"), "").unwrap();
    let error = install(&config("one", ""), dir.path(), None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("can't create {}/maps: ", dir.path().display())), "{error}");
}

/// Set in the process that runs inside its own mount namespace: the tmpfs there.
const INSIDE: &str = "HAPILOT_TEST_TMPFS";

/// Runs the test of this name again in a mount namespace of its own, where
/// `mount` made `dir` what the test wants. Needs root, as all of `make test`.
fn again_with(test: &str, dir: &Path, mount: &str) {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!(
            "{mount}; exec \"$0\" --exact haproxy_config::write::tests::{test} --nocapture --include-ignored"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, dir)
        .output()
        .expect("unshare (util-linux) and root are needed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
    assert!(status.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the test wasn't found again: {said}");
}

#[test]
fn a_full_disk_keeps_the_old_configuration() {
    if let Some(dir) = std::env::var_os(INSIDE).map(PathBuf::from) {
        install(&config("one", "a b\n"), &dir, None).unwrap();
        // The maps still fit, the configuration doesn't: the worst place to stop.
        let error = install(&config(&"x".repeat(100_000), "a c\n"), &dir, None).unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("make room there (the old configuration is kept)"), "{error}");
        assert_eq!(files(&dir), expected("one", "a b\n"));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=64k tmpfs \"$HAPILOT_TEST_TMPFS\"";
    again_with("a_full_disk_keeps_the_old_configuration", dir.path(), mount);
}

#[test]
fn a_read_only_disk_keeps_the_old_configuration() {
    if let Some(dir) = std::env::var_os(INSIDE).map(PathBuf::from) {
        let error = install(&config("two", "a c\n"), &dir, None).unwrap_err().to_string();
        assert!(error.contains("mount it writable or choose another --dir"), "{error}");
        assert_eq!(files(&dir), expected("one", "a b\n"));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    install(&config("one", "a b\n"), dir.path(), None).unwrap();
    let mount = "mount --bind \"$HAPILOT_TEST_TMPFS\" \"$HAPILOT_TEST_TMPFS\"; \
                 mount -o remount,bind,ro \"$HAPILOT_TEST_TMPFS\"";
    again_with("a_read_only_disk_keeps_the_old_configuration", dir.path(), mount);
    assert_eq!(files(dir.path()), expected("one", "a b\n"));
}
