# What a person types. The longer steps are scripts under compose/setup and tests/setup.

export CARGO_TARGET_DIR := $(CURDIR)/target

.PHONY: help build setup demo demo-down demo-pair demo-pair-down test simulate bench bench-continuity bench-pair fmt lint audit
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## hapilot and the sample service, optimised
	cargo build --release --locked --features sample --bins

demo: build ## HAProxy, hapilot and three sample services, on this machine
	compose/setup/demo.sh up

demo-down: ## removes all that the demo made
	compose/setup/demo.sh down

demo-pair: build ## two load balancers under keepalived, and a failover
	compose/setup/demo.sh up pair

demo-pair-down: ## removes all that the pair's demo made
	compose/setup/demo.sh down pair

setup: build ## what the tests need: tools, HAProxy 2.6 to 3.4, a Docker engine, images
	tests/setup/tools.sh
	tests/setup/haproxy.sh
	compose/setup/engine.sh
	compose/setup/images.sh

test: setup ## all tests
	cargo nextest run --locked --all-targets --no-fail-fast --retries 0
	cargo test --doc --locked

simulate: ## random histories against the model of HAProxy, SEEDS=500 of each version
	HAPILOT_SIM_SEEDS=$(or $(SEEDS),500) cargo nextest run --locked --no-fail-fast --test simulation

bench: build ## the benchmarks, with real HAProxy
	tests/setup/haproxy.sh
	cargo bench --locked --bench convergence --bench events --bench footprint --bench engine

bench-continuity: build ## does a visitor notice anything? 200 requests/s, real Docker engine, a quarter of an hour
	tests/setup/haproxy.sh
	compose/setup/engine.sh
	compose/setup/images.sh sample
	cargo bench --locked --bench continuity

bench-pair: build ## how long a failover of the pair takes, 200 requests/s, HAPILOT_BENCH_TIMES=20 of each
	compose/setup/engine.sh
	compose/setup/images.sh
	cargo bench --locked --bench pair

fmt: ## formats the code
	cargo fmt --all

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --all-targets --all-features --locked -- -D warnings

audit: ## licences, sources, advisories of the dependencies
	tests/setup/audit.sh
