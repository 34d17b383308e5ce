#!/usr/bin/env bash
# Makes sure that a Docker engine and a compose command answer.
#
#   compose/setup/engine.sh          uses the engine that is there; else installs and starts Debian's
#   compose/setup/engine.sh stop     stops the engine, if it was started by this script
#
# Where there is no systemd, dockerd is started by hand; its log and process id are under $state.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

state=/var/lib/hapilot-engine
log=$state/dockerd.log
pidfile=$state/dockerd.pid

started_here() {
    local pid
    # One that was killed and not yet reaped still has its name, but no program any more.
    [[ -e $pidfile ]] && pid=$(cat "$pidfile") && [[ $(readlink "/proc/$pid/exe") == */dockerd ]]
}

wait_for_engine() { # SECONDS
    local second
    for ((second = 0; second < $1; second++)); do
        # Once more after the first success: the first of the clients may have asked too early.
        if find_docker; then find_docker && return 0; fi
        sleep 1
    done
    return 1
}

stop_engine() {
    if ! started_here; then
        say "no engine that this script started is running"
        return
    fi
    local pid
    pid=$(cat "$pidfile")
    say "stopping dockerd (process $pid)"
    kill "$pid"
    while [[ -e /proc/$pid ]]; do sleep 0.2; done
    rm -f "$pidfile"
}

start_engine() {
    local dockerd
    dockerd=$(command -v dockerd || true)
    if [[ -z $dockerd ]]; then
        say "no Docker engine on this machine: installing Debian's"
        install_packages docker.io docker-compose iptables ca-certificates
        dockerd=$(command -v dockerd) || fail "dockerd is missing after the installation"
        # The package may have started it.
        ! wait_for_engine 2 || return 0
    fi
    [[ $(id -u) -eq 0 ]] || fail "no Docker engine answers, and only root can start one"
    if [[ -d /run/systemd/system ]]; then
        say "starting docker.service"
        systemctl start docker || fail "docker.service does not start (journalctl -u docker)"
    elif ! started_here; then
        mkdir -p "$state"
        # A killed one that is not yet reaped would be taken for one that runs; so would its containerd.
        rm -f "$pidfile" /var/run/docker/containerd/containerd.pid
        say "starting $dockerd by hand (log: $log)"
        setsid nohup "$dockerd" --pidfile "$pidfile" </dev/null >>"$log" 2>&1 &
    fi
    wait_for_engine 60 || {
        [[ ! -e $log ]] || tail -n 20 "$log" >&2
        fail "the Docker engine does not answer within 60 seconds (log: $log)"
    }
}

case ${1:-start} in
    stop)
        stop_engine
        exit
        ;;
    start) ;;
    *) fail "usage: $0 [start|stop]" ;;
esac

if ! find_docker; then
    # An engine elsewhere is not this script's to start.
    [[ -z ${DOCKER_HOST:-} ]] || fail "the Docker engine at DOCKER_HOST=$DOCKER_HOST does not answer"
    start_engine
fi
say "Docker engine $("$docker" version --format '{{.Server.Version}}') answers ($docker)"

if ! "$docker" compose version >/dev/null 2>&1; then
    command -v docker-compose >/dev/null || install_packages docker-compose
fi
say "compose: $("$(dirname "$0")/compose.sh" version --short)"
