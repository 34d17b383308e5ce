# The sample service as built on the host: cargo build --release --locked --example sample-backend
# No EXPOSE: whoever runs it says the port, or hapilot falls back on its rule.
ARG BASE=debian:trixie-slim
FROM $BASE
COPY target/release/examples/sample-backend /usr/local/bin/sample-backend
ENTRYPOINT ["sample-backend"]
