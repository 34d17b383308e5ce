#!/usr/bin/env bash
# Runs whichever compose command is there: `docker compose`, else `docker-compose`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

need_docker
if "$docker" compose version >/dev/null 2>&1; then
    exec "$docker" compose "$@"
elif command -v docker-compose >/dev/null; then
    exec docker-compose "$@"
fi
fail "neither 'docker compose' nor 'docker-compose' is there (Debian: docker-compose)"
