#!/usr/bin/env bash
# Makes sure that the image debian:SUITE-slim is there: kept if present, else pulled, else made with
# debootstrap from the Debian mirror that this machine's apt is set up with.
#
#   compose/setup/base-image.sh SUITE        e.g. trixie
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

suite=${1:?"usage: $0 SUITE"}
image=debian:$suite-slim

need_docker
if "$docker" image inspect "$image" >/dev/null 2>&1; then
    say "$image is there"
    exit
fi

say "pulling $image"
if timeout 180 "$docker" pull --quiet "$image" >/dev/null 2>&1; then
    exit
fi
say "no registry can be reached: making $image with debootstrap (about a minute)"
[[ $(id -u) -eq 0 ]] || fail "only root can make $image with debootstrap"
install_packages debootstrap

# The base address of one suite of the machine's own Debian mirror.
mirror_of() { # SUITE…
    # apt's own placeholders, not the shell's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v wanted=" $* " '$3 == "main" && index(wanted, " " $2 " ") && !n++ { print $1 }'
}

# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[[ -n $(mirror_of "$codename" stable) ]] || apt-get update -qq || true
mirror=$(mirror_of "$codename" stable)
security=$(mirror_of "$codename-security" stable-security)
[[ -n $mirror ]] || fail "no Debian mirror among this machine's apt sources: $image can't be made"

if [[ -z ${http_proxy:-} ]]; then
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
    [[ -z ${http_proxy:-} ]] || export http_proxy
fi

work=$(mktemp -d -p /var/tmp "base-image.XXXXXX")
remove_work() {
    local mounted
    while read -r mounted; do
        umount "$mounted" || true
    done < <(awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r)
    rm -rf --one-file-system "$work"
}
trap remove_work EXIT
tree=$work/tree

include=()
[[ $mirror != https:* && $security != https:* ]] || include=(--include=ca-certificates)
debootstrap --variant=minbase "${include[@]}" "$suite" "$tree" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "debootstrap of $suite from this machine's mirror failed: $image can't be made"
}

# What `apt-get` in a Dockerfile needs to reach the mirror as this machine does.
{
    echo "deb $mirror $suite main"
    [[ -z $security ]] || echo "deb $security $suite-security main"
} >"$tree/etc/apt/sources.list"
apt-config dump | grep -E '^Acquire::(http|https|Check|Retries)[^ ]* "[^"]+";$' \
    >"$tree/etc/apt/apt.conf.d/90machine" || true
if [[ ${#include[@]} -gt 0 ]]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
fi

# As in the published slim images: no package lists, no documentation.
cat >"$tree/etc/dpkg/dpkg.cfg.d/slim" <<'SLIM'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
SLIM
find "$tree/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* \
    "$tree"/usr/share/man/* "$tree"/usr/share/locale/* "$tree"/var/log/*.log \
    "$tree"/etc/resolv.conf "$tree"/etc/hostname

tar -C "$tree" --one-file-system --numeric-owner -c . |
    "$docker" import --change 'CMD ["bash"]' - "$image" >/dev/null
say "$image is made"
