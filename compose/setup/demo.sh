#!/usr/bin/env bash
# Brings compose/sidecar.yml up and waits until every host answers, or removes all that it made. The
# same with compose/pair.yml, where the first load balancer is then killed for a look at the failover.
#
#   compose/setup/demo.sh up | down [pair]
#
# HAPILOT_HTTP_PORT (8080) and HAPILOT_ADMIN_PORT (9100) choose the published ports of the sidecar; the
# pair publishes none. `down` removes containers, network, volumes and the images that were built here;
# the Docker engine and the Debian base image stay.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

setup=$(cd "$(dirname "$0")" && pwd)
cd "$setup/../.."
export HAPILOT_HTTP_PORT=${HAPILOT_HTTP_PORT:-8080}
export HAPILOT_ADMIN_PORT=${HAPILOT_ADMIN_PORT:-9100}
url=http://127.0.0.1:$HAPILOT_HTTP_PORT
hosts=(shop.example api.example blog.example www.blog.example)
demo=${2:-sidecar}
case $demo in
    sidecar) project=hapilot-demo network=hapilot-demo_web logs="haproxy hapilot" again="make demo-down" ;;
    pair)
        project=hapilot-pair network=hapilot-pair-web again="make demo-pair-down"
        logs="lb1-haproxy lb1-hapilot lb1-keepalived lb2-haproxy lb2-hapilot lb2-keepalived"
        ;;
    *) fail "usage: $0 up|down [pair]" ;;
esac

compose() {
    "$setup/compose.sh" -p "$project" -f "compose/$demo.yml" "$@"
}

give_up() { # MESSAGE
    compose ps || true
    # shellcheck disable=SC2086
    compose logs --no-color --tail 40 $logs || true
    fail "$1 (logs above; '$again' removes what was made)"
}

answers() { # HOST
    curl --noproxy '*' -fsS -m 2 -o /dev/null -H "Host: $1" "$url/" 2>/dev/null
}

# It is a number, and nothing listens there but the demo itself, should it be up already.
check_port() { # PORT VARIABLE
    [[ $1 =~ ^[0-9]+$ ]] || fail "$2 is not a port: '$1'"
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null &&
        [[ -z $("$docker" ps -q --filter name='^hapilot-haproxy$') ]]; then
        fail "port $1 of 127.0.0.1 is in use: choose another with $2=PORT make demo"
    fi
}

# The client as a person would type it.
as_typed() {
    if [[ $docker == "$(command -v docker)" ]]; then echo docker; else echo "$docker"; fi
}

up() {
    install_packages curl
    "$setup/engine.sh"
    need_docker
    check_port "$HAPILOT_HTTP_PORT" HAPILOT_HTTP_PORT
    check_port "$HAPILOT_ADMIN_PORT" HAPILOT_ADMIN_PORT
    "$setup/images.sh" haproxy hapilot sample
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
    local client compose="compose/setup/compose.sh -p $project -f compose/$demo.yml"
    client=$(as_typed)
    cat <<TEXT

All hosts answer at $url. What to try next:

  a service                 curl --noproxy '*' -H 'Host: shop.example' $url/
  two that share the load   for i in 1 2 3 4; do curl -s --noproxy '*' -H 'Host: api.example' $url/ | head -1; done
  scale it                  $compose up -d --no-build --scale api=4
  a host of your own        $client run -d --rm --network hapilot-demo_web -e VIRTUAL_HOST=new.example -e VIRTUAL_PORT=8000 hapilot-sample:local
  what hapilot sees         $compose exec hapilot hapilot status
  watch it work             $compose logs -f hapilot
  metrics                   curl --noproxy '*' http://127.0.0.1:$HAPILOT_ADMIN_PORT/metrics
  stop and remove           make demo-down
TEXT
}

# ---- the pair ----

virtual=${HAPILOT_PAIR_NET:-172.31.250}.10

# What hapilot says of one load balancer in its first line.
state_of() { # lb1|lb2
    "$docker" exec "hapilot-pair-$1-hapilot" hapilot status 2>/dev/null | head -n 1
}

# Waits until that line has these words.
await_state() { # lb1|lb2 WORDS
    local deadline=$((SECONDS + 60)) state
    until
        state=$(state_of "$1")
        [[ $state == "$2"* ]]
    do
        ((SECONDS < deadline)) || give_up "$1 is not '$2' within a minute, but: $state"
        sleep 0.2
    done
    say "$1: $state"
}

# Waits until lb1 has held the address for a while: it may change hands once while keepalived's first
# checks come in.
await_calm() {
    local deadline=$((SECONDS + 60)) since=$SECONDS
    while ((SECONDS - since < 5)); do
        ((SECONDS < deadline)) || give_up "the pair does not come to rest within a minute"
        [[ $(state_of lb1) == "converged · master"* && $(state_of lb2) == "converged · backup"* ]] ||
            since=$SECONDS
        sleep 0.2
    done
}

# A request to the virtual address from the client's container; prints the answer's text.
visit() { # HOST
    # The words are the inner shell's.
    # shellcheck disable=SC2016
    timeout 2 "$docker" exec hapilot-pair-client bash -c '
        exec 3<>"/dev/tcp/$0/80" && printf "GET / HTTP/1.0\r\nHost: %s\r\n\r\n" "$1" >&3 && cat <&3
    ' "$virtual" "$1" 2>/dev/null | grep -q " 200 "
}

await_visit() { # HOST
    local deadline=$((SECONDS + 60))
    until visit "$1"; do
        ((SECONDS < deadline)) || give_up "$1 does not answer at $virtual within a minute"
        sleep 0.05
    done
}

up_pair() {
    "$setup/engine.sh"
    need_docker
    "$setup/images.sh"
    say "starting the containers"
    compose up -d --no-build || give_up "the containers do not start"
    say "waiting until lb1 holds the address"
    await_calm
    await_state lb1 "converged · master"
    await_state lb2 "converged · backup"
    local host
    for host in shop.example api.example; do
        await_visit "$host"
        say "$host answers at $virtual"
    done

    local one=(hapilot-pair-lb1-keepalived hapilot-pair-lb1-haproxy hapilot-pair-lb1-hapilot hapilot-pair-lb1)
    say "the end of lb1: all its processes are killed"
    "$docker" kill "${one[@]}" >/dev/null
    await_visit shop.example
    say "shop.example answers at $virtual again"
    await_state lb2 "converged · master"
    say "lb1 comes back"
    # The namespace, which the others join, first.
    "$docker" start hapilot-pair-lb1 >/dev/null
    "$docker" start "${one[@]:0:3}" >/dev/null
    await_state lb1 "converged · master"
    await_state lb2 "converged · backup"

    local client
    client=$(as_typed)
    cat <<TEXT

A pair of load balancers holds $virtual; this machine and the containers of hapilot-pair-web reach it.
What to try next:

  a service                 curl --noproxy '*' -H 'Host: shop.example' http://$virtual/
  who holds the address     for i in 1 2; do $client exec hapilot-pair-lb\$i-hapilot hapilot status | head -1; done
  a planned switch          $client stop hapilot-pair-lb1-keepalived     (and back: $client start …)
  the end of HAProxy        $client kill hapilot-pair-lb1-haproxy        (and back: $client start …)
  the end of hapilot        $client kill hapilot-pair-lb1-hapilot        (and back: $client start …)
  what keepalived says      $client logs -f hapilot-pair-lb1-keepalived
  how long it takes         make bench-pair
  stop and remove           make demo-pair-down
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
    done < <("$docker" ps -aq --filter network="$network" \
        --filter ancestor=hapilot-sample:local)
    # Those of other images are not the demo's to remove; they only leave its network.
    local owner
    while read -r container owner; do
        [[ $owner != "$project" ]] || continue
        say "disconnecting container $container from $network"
        "$docker" network disconnect -f "$network" "$container"
    done < <("$docker" ps -a --filter network="$network" \
        --format '{{.ID}} {{.Label "com.docker.compose.project"}}')
    say "removing containers, network and volumes"
    compose down --volumes --remove-orphans
    for image in hapilot:local hapilot-haproxy:local hapilot-sample:local hapilot-keepalived:local; do
        if "$docker" image inspect "$image" >/dev/null 2>&1; then
            say "removing image $image"
            "$docker" rmi "$image" >/dev/null || say "$image is still in use and stays"
        fi
    done
    "$docker" image prune -f --filter label=io.hapilot.image=local >/dev/null
    say "removed; the base image and the Docker engine stay (an engine that 'make demo' started by" \
        "hand ends with: compose/setup/engine.sh stop)"
}

case ${1:-}-$demo in
    up-sidecar) up ;;
    up-pair) up_pair ;;
    down-*) down ;;
    *) fail "usage: $0 up|down [pair]" ;;
esac
