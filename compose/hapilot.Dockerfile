# hapilot as built on the host: cargo build --release --locked --bin hapilot
ARG BASE=debian:trixie-slim
FROM $BASE
COPY target/release/hapilot /usr/local/bin/hapilot
ENTRYPOINT ["hapilot"]
