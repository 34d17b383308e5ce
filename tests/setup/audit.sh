#!/usr/bin/env bash
# Checks the dependencies with cargo-deny (deny.toml): bans, licences and sources always, advisories
# when their database can be had.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../compose/setup/common.sh
. "$(dirname "$0")/../../compose/setup/common.sh"
cd "$(dirname "$0")/../.."

if ! cargo deny --version >/dev/null 2>&1; then
    say "installing cargo-deny (compiles for some minutes)"
    # Not into this project's target directory: its build is of no further use.
    env -u CARGO_TARGET_DIR cargo install --locked --quiet cargo-deny </dev/null ||
        fail "cargo-deny can't be installed"
fi

cargo deny --locked check bans licenses sources

if timeout 120 cargo deny --locked fetch db </dev/null >/dev/null 2>&1; then
    cargo deny --locked check --disable-fetch advisories
else
    say "the advisory database can't be reached: advisories were NOT checked"
fi
