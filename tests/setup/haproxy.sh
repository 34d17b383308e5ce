#!/usr/bin/env bash
# Fetches the HAProxy versions that the tests run against, each with its own shared libraries, and
# leaves an executable target/haproxy/VERSION/haproxy for each.
#
#   tests/setup/haproxy.sh [VERSION…]        default: 2.6 3.0 3.2 3.4
#
# The packages come from the Debian mirror that this machine's apt is set up with, through a
# private apt configuration under target/: nothing is installed on the machine. What is there
# already is kept.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
trees=$root/target/haproxy
apt_dir=$root/target/haproxy-apt

# The suites that carry a version, the likeliest first. Debian moves on: what is in sid today is in
# testing tomorrow.
suites_of() {
    case $1 in
        2.6) echo bookworm ;;
        3.0) echo trixie ;;
        3.2) echo sid testing trixie-backports ;;
        3.4) echo experimental sid testing ;;
        *) return 1 ;;
    esac
}

say() { echo "haproxy.sh: $*"; }
fail() {
    echo "haproxy.sh: $*" >&2
    exit 1
}

works() { # VERSION
    local tree=$trees/$1
    # Copied out first: with pipefail, a grep that stops early would count as a failure.
    local printed
    [[ -x $tree/haproxy ]] && printed=$("$tree/haproxy" -v 2>/dev/null) &&
        [[ $printed == "HAProxy version $1."* ]]
}

# Sets `mirror` and `keyring` from the machine's own apt sources.
find_mirror() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -e $keyring ]] || fail "$keyring is missing (package debian-archive-keyring)"
    mirror=$(main_archive)
    if [[ -z $mirror ]]; then
        say "asking apt for its package lists (apt-get update)"
        apt-get update -qq || fail "apt-get update failed: HAProxy can't be fetched"
        mirror=$(main_archive)
    fi
    [[ -n $mirror ]] || fail "no Debian mirror among this machine's apt sources"
}

main_archive() {
    local codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # apt's own placeholders, not the shell's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v c="$codename" '$3 == "main" && ($2 == c || $2 == "stable") && !n++ { print $1 }'
}

# A private apt for one suite: its own sources, lists, cache and (empty) list of installed packages.
# Proxy, certificate and credential settings stay the machine's.
private_apt() { # SUITE COMMAND…
    local suite=$1 dir=$apt_dir/$1
    shift
    if [[ ! -e $dir/apt.conf ]]; then
        mkdir -p "$dir"/{etc/sources.list.d,etc/preferences.d,state/lists/partial,cache/archives/partial}
        : >"$dir/state/status"
        local list=$suite
        # These two are incomplete by themselves.
        [[ $suite == experimental ]] && list="sid experimental"
        [[ $suite == *-backports ]] && list="${suite%-backports} $suite"
        local one
        for one in $list; do
            echo "deb [signed-by=$keyring] $mirror $one main"
        done >"$dir/etc/sources.list"
        cat >"$dir/apt.conf" <<CONF
Dir::State "$dir/state";
Dir::State::status "$dir/state/status";
Dir::Cache "$dir/cache";
Dir::Etc::sourcelist "$dir/etc/sources.list";
Dir::Etc::sourceparts "$dir/etc/sources.list.d";
Dir::Etc::preferences "$dir/etc/preferences";
Dir::Etc::preferencesparts "$dir/etc/preferences.d";
Dir::Log "$dir";
APT::Install-Recommends "0";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
CONF
    fi
    "$@" -c "$dir/apt.conf"
}

fetch() { # VERSION SUITE; leaves the tree, or returns non-zero
    local version=$1 suite=$2 cache=$apt_dir/$2/cache/archives tree=$trees/$1.new
    say "HAProxy $version: reading the package lists of $suite"
    private_apt "$suite" apt-get -qq update || return 1
    local package
    package=$(private_apt "$suite" apt-cache madison haproxy |
        awk -F' *[|] *' -v v="$version." 'index($2, v) == 1 { print $2; exit }')
    [[ -n $package ]] || return 1
    say "HAProxy $version: fetching haproxy $package and its libraries from $suite"
    rm -f "$cache"/*.deb
    private_apt "$suite" apt-get -qq --yes --download-only install "haproxy=$package" >/dev/null ||
        return 1

    rm -rf "$tree"
    mkdir -p "$tree/all" "$tree/lib" "$tree/bin"
    local deb
    for deb in "$cache"/*.deb; do
        dpkg -x "$deb" "$tree/all"
    done
    rm -f "$cache"/*.deb
    keep_what_runs "$tree" || return 1
    rm -rf "${trees:?}/$version"
    mv "$tree" "$trees/$version"
    works "$version"
}

# Keeps HAProxy, the dynamic loader, the libraries that they name, and those that the C library
# opens by itself (name lookups, thread cancellation).
keep_what_runs() { # TREE
    local tree=$1 loader path lib
    loader=$(find "$tree/all" -name 'ld-linux*.so.*' | sort | head -n 1)
    [[ -n $loader ]] || return 1
    path=$(find "$tree/all" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    cp -L "$loader" "$tree/lib/ld.so"
    cp "$tree/all/usr/sbin/haproxy" "$tree/bin/haproxy"
    "$tree/lib/ld.so" --library-path "$path" --list "$tree/bin/haproxy" |
        awk -v ld="$tree/lib/ld.so" '$2 == "=>" && $3 != ld { print $3 }' >"$tree/libraries"
    find "$tree/all" \( -name 'libnss_*.so.2' -o -name 'libgcc_s.so.1' \) >>"$tree/libraries"
    while read -r lib; do
        # A library that isn't in the tree was not found in the packages.
        [[ $lib == "$tree"/* ]] || return 1
        cp -L "$lib" "$tree/lib/"
    done <"$tree/libraries"
    cat >"$tree/haproxy" <<'WRAPPER'
#!/bin/sh
# HAProxy with its own libraries. exec: the process that is started is HAProxy itself.
here=$(dirname "$(readlink -f "$0")")
exec "$here/lib/ld.so" --argv0 "$here/haproxy" --library-path "$here/lib" "$here/bin/haproxy" "$@"
WRAPPER
    chmod +x "$tree/haproxy"
    rm -rf "$tree/all" "$tree/libraries"
}

versions=("$@")
[[ ${#versions[@]} -gt 0 ]] || versions=(2.6 3.0 3.2 3.4)

mkdir -p "$trees"
# One at a time: two test runs may start together.
exec 9>"$trees/.lock"
flock 9

missing=()
for version in "${versions[@]}"; do
    suites=$(suites_of "$version") || fail "HAProxy $version: not a version that this script knows"
    if works "$version"; then
        continue
    fi
    [[ -n ${mirror:-} ]] || find_mirror
    for suite in $suites; do
        if fetch "$version" "$suite"; then
            say "HAProxy $version: $trees/$version/haproxy"
            continue 2
        fi
    done
    missing+=("$version")
done

[[ ${#missing[@]} -eq 0 ]] ||
    fail "not to be had from this machine's Debian mirror: HAProxy ${missing[*]}"
say "HAProxy ${versions[*]}: all there"
