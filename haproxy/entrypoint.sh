#!/bin/sh
# Waits for the configuration that hapilot renders into the shared volume, then becomes HAProxy.
set -eu

config=${HAPILOT_DIR:-/run/hapilot}/haproxy.cfg

# As a container's first process the shell would ignore a signal that it has no trap for.
trap 'exit 0' TERM INT USR1
if [ ! -s "$config" ]; then
    echo "haproxy: waiting for hapilot to render $config"
fi
while [ ! -s "$config" ]; do
    sleep 0.1 &
    wait $!
done
trap - TERM INT USR1

echo "haproxy: starting with $config"
exec haproxy -db -f "$config"
