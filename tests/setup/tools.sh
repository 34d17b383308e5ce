#!/usr/bin/env bash
# Makes sure that the tools that the tests need are there: a C compiler, curl, openssl, ip,
# libfaketime, cargo-nextest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../compose/setup/common.sh
. "$(dirname "$0")/../../compose/setup/common.sh"

command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v curl >/dev/null || packages+=(curl)
command -v openssl >/dev/null || packages+=(openssl)
command -v ip >/dev/null || packages+=(iproute2)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=(libfaketime)
[[ ${#packages[@]} -eq 0 ]] || install_packages "${packages[@]}"

if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest (compiles for some minutes)"
    cargo install --locked --quiet cargo-nextest </dev/null || fail "cargo-nextest can't be installed"
fi
say "all there"
