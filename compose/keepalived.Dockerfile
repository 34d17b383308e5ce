# keepalived beside HAProxy and hapilot (compose/pair.yml), with the hapilot that it calls as built on
# the host: cargo build --release --locked --bin hapilot
ARG BASE=debian:trixie-slim
FROM $BASE
RUN apt-get update \
    && apt-get install -y --no-install-recommends keepalived iproute2 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
COPY target/release/hapilot /usr/local/bin/hapilot
COPY compose/keepalived-entrypoint.sh /usr/local/bin/keepalived-entrypoint
# The settings of its configuration are variables: `hapilot render --help`.
ENTRYPOINT ["keepalived-entrypoint"]
