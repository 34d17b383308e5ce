#!/usr/bin/env bash
# Brings compose/sidecar.yml up and waits until every host answers, or removes all that it made.
#
#   compose/setup/demo.sh up | down
#
# HAPILOT_HTTP_PORT (8080) and HAPILOT_ADMIN_PORT (9100) choose the published ports. `down` removes
# containers, network, volume and the images that were built here; the Docker engine and the Debian
# base image stay.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

setup=$(cd "$(dirname "$0")" && pwd)
cd "$setup/../.."
export HAPILOT_HTTP_PORT=${HAPILOT_HTTP_PORT:-8080}
export HAPILOT_ADMIN_PORT=${HAPILOT_ADMIN_PORT:-9100}
url=http://127.0.0.1:$HAPILOT_HTTP_PORT
hosts=(shop.example api.example blog.example www.blog.example)

compose() {
    "$setup/compose.sh" -p hapilot-demo -f compose/sidecar.yml "$@"
}

give_up() { # MESSAGE
    compose ps || true
    compose logs --no-color --tail 40 haproxy hapilot || true
    fail "$1 (logs above; 'make demo-down' removes what was made)"
}

answers() { # HOST
    curl --noproxy '*' -fsS -m 2 -o /dev/null -H "Host: $1" "$url/" 2>/dev/null
}

# A port that something else listens on, unless it is the demo itself that is up already.
check_port() { # PORT VARIABLE
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null &&
        [[ -z $("$docker" ps -q --filter name='^hapilot-haproxy$') ]]; then
        fail "port $1 of 127.0.0.1 is in use: choose another with $2=PORT make demo"
    fi
}

up() {
    install_packages curl
    "$setup/engine.sh"
    need_docker
    check_port "$HAPILOT_HTTP_PORT" HAPILOT_HTTP_PORT
    check_port "$HAPILOT_ADMIN_PORT" HAPILOT_ADMIN_PORT
    "$setup/images.sh"
    say "starting the containers"
    compose up -d --no-build || give_up "the containers do not start"

    local deadline=$((SECONDS + 60)) host
    for host in "${hosts[@]}"; do
        say "waiting for $host"
        until answers "$host"; do
            ((SECONDS < deadline)) || give_up "$host does not answer at $url within a minute"
            sleep 0.2
        done
    done
    cat <<TEXT

All hosts answer at $url. What to try next:

  a service                 curl -H 'Host: shop.example' $url/
  two that share the load   for i in 1 2 3 4; do curl -s -H 'Host: api.example' $url/ | head -1; done
  scale it                  compose/setup/compose.sh -p hapilot-demo -f compose/sidecar.yml up -d --no-build --scale api=4
  a host of your own        $docker run -d --rm --network hapilot-demo_web -e VIRTUAL_HOST=new.example -e VIRTUAL_PORT=8000 hapilot-sample:local
  what hapilot sees         $docker exec \$($docker ps -qf label=com.docker.compose.project=hapilot-demo -f label=com.docker.compose.service=hapilot) hapilot status --dir /run/hapilot
  watch it work             compose/setup/compose.sh -p hapilot-demo -f compose/sidecar.yml logs -f hapilot
  metrics                   curl http://127.0.0.1:$HAPILOT_ADMIN_PORT/metrics
  stop and remove           make demo-down
TEXT
}

down() {
    if ! find_docker; then
        say "no Docker engine answers: nothing to remove"
        return
    fi
    local image container
    # Containers that were started by hand to try things out hold on to the network.
    while read -r container; do
        say "removing container $container"
        "$docker" rm -f "$container" >/dev/null
    done < <("$docker" ps -aq --filter network=hapilot-demo_web \
        --filter ancestor=hapilot-sample:local)
    say "removing containers, network and volume"
    compose down --volumes --remove-orphans
    for image in hapilot:local hapilot-haproxy:local hapilot-sample:local; do
        if "$docker" image inspect "$image" >/dev/null 2>&1; then
            say "removing image $image"
            "$docker" rmi "$image" >/dev/null || say "$image is still in use and stays"
        fi
    done
    "$docker" image prune -f --filter label=io.hapilot.image=local >/dev/null
    say "removed; the base image and the Docker engine stay (an engine that 'make demo' started by" \
        "hand ends with: compose/setup/engine.sh stop)"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    *) fail "usage: $0 up|down" ;;
esac
