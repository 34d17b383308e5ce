#!/usr/bin/env bash
# Builds the images of compose/ from what cargo built: hapilot-haproxy:local, hapilot:local,
# hapilot-sample:local and hapilot-keepalived:local.
#
#   compose/setup/images.sh [haproxy] [hapilot] [sample] [keepalived]        default: all four
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

root=$(cd "$(dirname "$0")/../.." && pwd)
need_docker
"$(dirname "$0")/base-image.sh" trixie

build() { # IMAGE CONTEXT DOCKERFILE
    local arguments=() log variable
    # Docker knows these by itself; given only when the machine has them.
    for variable in http_proxy https_proxy no_proxy; do
        [[ -z ${!variable:-} ]] || arguments+=(--build-arg "$variable=${!variable}")
    done
    say "building $1"
    log=$(mktemp)
    "$docker" build "${arguments[@]}" --label io.hapilot.image=local --tag "$1" --file "$3" "$2" \
        >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        rm -f "$log"
        fail "$1 can't be built"
    }
    rm -f "$log"
}

need_binary() { # PATH
    [[ -x $root/$1 ]] || fail "$1 is missing: run 'make build' first"
}

images=("$@")
[[ ${#images[@]} -gt 0 ]] || images=(haproxy hapilot sample keepalived)
for image in "${images[@]}"; do
    case $image in
        haproxy) build hapilot-haproxy:local "$root/haproxy" "$root/haproxy/Dockerfile" ;;
        hapilot)
            need_binary target/release/hapilot
            build hapilot:local "$root" "$root/compose/hapilot.Dockerfile"
            ;;
        sample)
            need_binary target/release/sample-backend
            build hapilot-sample:local "$root" "$root/compose/sample.Dockerfile"
            ;;
        keepalived)
            need_binary target/release/hapilot
            build hapilot-keepalived:local "$root" "$root/compose/keepalived.Dockerfile"
            ;;
        *) fail "no such image: $image" ;;
    esac
done
