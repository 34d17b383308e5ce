#!/bin/sh
# Writes keepalived's configuration by the variables HAPILOT_… and runs keepalived. Told to stop, it lets
# the partner take the address before keepalived ends.
set -eu

hapilot render --keepalived >/etc/keepalived/keepalived.conf
# On lo the address stays when keepalived takes it from the interface: what still arrives here then is
# answered. Only the interface's own addresses are announced (sysctls in pair.yml).
for address in $(echo "$HAPILOT_VIRTUAL_ADDRESS" | tr , ' '); do
    ip address replace "${address%/*}" dev lo
done
# Only VRRP, no IPVS.
keepalived --dont-fork --log-console --vrrp &
keepalived=$!
stop() {
    hapilot leave || true
    kill -TERM "$keepalived"
}
trap stop TERM INT
# A trap ends the first wait.
while kill -0 "$keepalived" 2>/dev/null; do
    status=0
    wait "$keepalived" || status=$?
done
exit "$status"
