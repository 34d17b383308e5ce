//! In which container hapilot itself is.
//!
//! What lives here: what the kernel and the engine's files tell a process about
//! itself. What it must not know: any engine's answers, and what follows for
//! HAProxy (`core::place`).
//!
//! With control groups of version 1 a process reads its container's identifier
//! in `/proc/self/cgroup`. With version 2 it sees only its own root there; then
//! the files that the engine lays over `/etc` tell, which in a shared network
//! namespace are those of the namespace's owner: for addresses that is as good.

use std::collections::BTreeSet;
use std::fs;

/// Files of a container that lie in a directory of its name on the host.
const LAID_OVER: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Identifiers that hapilot's own container may have, the surest first; the last
/// may be only the first twelve characters of one. Empty outside of containers
/// as far as can be told.
#[must_use]
pub fn own_container() -> Vec<String> {
    // What can't be read tells nothing.
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (groups, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
    candidates(&groups, &mounts, read("/proc/sys/kernel/hostname").trim())
}

fn candidates(groups: &str, mounts: &str, hostname: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    // Docker's default host name is the beginning of the identifier.
    let hostname = (hostname.len() == 12 && is_hex(hostname)).then_some(hostname);
    let all =
        groups.lines().filter_map(identifier).chain(mounts.lines().filter_map(of_mount)).chain(hostname);
    all.filter(|id| seen.insert(*id)).map(str::to_owned).collect()
}

/// `36 25 0:32 /docker/containers/ID/hostname /etc/hostname rw - ext4 …`: the
/// fourth field is the place on the host's file system, the fifth the one here.
fn of_mount(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    LAID_OVER.contains(&point).then(|| identifier(root)).flatten()
}

/// The last run of 64 hexadecimal digits in a path or line.
fn identifier(text: &str) -> Option<&str> {
    let words = text.rsplit(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find(|word| word.len() == 64 && is_hex(word))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_engine_is_understood() {
        let id = "4b42b971c27f78c964fbeaf01b315f855da0f9d8782ab0885f16ec75193030f7";
        let other = "b8ae4835b087f792577fbc9cfee7ad1763c795eb0ebe56063519423039b5d65e";
        let v1 =
            format!("12:pids:/docker/{id}\n11:memory:/docker/{id}\n0::/system.slice/containerd.service\n");
        let systemd = format!("0::/system.slice/docker-{id}.scope\n");
        let mount = |id: &str, point: &str| {
            format!(
                "229 196 254:0 /var/lib/docker/containers/{id}/hostname {point} rw,relatime - ext4 /dev/vda rw\n"
            )
        };
        let guest = mount(other, "/etc/hostname");
        // A directory of some container that a process on the host sees.
        let host = mount(other, "/var/lib/docker/containers/x");
        for (groups, mounts, hostname, wanted) in [
            (&*v1, "", "web", vec![id]),
            (&systemd, "", "web", vec![id]),
            ("0::/\n", &guest, "lb", vec![other]),
            (&v1, &guest, "4b42b971c27f", vec![id, other, "4b42b971c27f"]),
            ("0::/\n", "", "4b42b971c27f", vec!["4b42b971c27f"]),
            ("0::/user.slice/user-0.slice/session-1.scope\n", &host, "farm-1", vec![]),
            ("", "1 2 3\n", "", vec![]),
        ] {
            assert_eq!(candidates(groups, mounts, hostname), wanted, "{groups} {mounts} {hostname}");
        }
    }
}
