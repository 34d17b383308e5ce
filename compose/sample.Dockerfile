# The sample service as built on the host by `make build`.
# No EXPOSE: whoever runs it says the port, or hapilot falls back on its rule.
ARG BASE=debian:trixie-slim
FROM $BASE
COPY target/release/sample-backend /usr/local/bin/sample-backend
ENTRYPOINT ["sample-backend"]
