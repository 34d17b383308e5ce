# shellcheck shell=bash
# What the setup scripts share: messages, the choice of the docker client, installing packages.
# Sourced, not run.

me=$(basename "$0")
say() { echo "$me: $*"; }
fail() {
    echo "$me: $*" >&2
    exit 1
}

# Sets `docker` (used by the scripts that source this) to a client that the engine answers. A client that is newer or older than the engine
# by too much is refused by it, so every client on the PATH is tried, then Debian's.
# shellcheck disable=SC2034
find_docker() {
    local candidate
    while read -r candidate; do
        if timeout 10 "$candidate" version >/dev/null 2>&1; then
            docker=$candidate
            return 0
        fi
    done < <(
        type -ap docker
        [[ ! -x /usr/bin/docker ]] || echo /usr/bin/docker
    )
    docker=
    return 1
}

need_docker() {
    find_docker || fail "no Docker engine answers (compose/setup/engine.sh installs and starts one)"
}

install_packages() { # PACKAGE…
    local wanted=()
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
            wanted+=("$package")
    done
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null || fail "missing and not to be installed without apt-get: ${wanted[*]}"
    [[ $(id -u) -eq 0 ]] || fail "missing, and only root can install: ${wanted[*]}"
    say "installing ${wanted[*]}"
    apt-get update -qq || fail "apt-get update failed, so these can't be installed: ${wanted[*]}"
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${wanted[@]}" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "can't be installed: ${wanted[*]}"
    fi
    rm -f "$log"
}
