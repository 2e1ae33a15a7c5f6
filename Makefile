# Heronry. `make run` starts the broker on a machine that has never seen it; `make test` runs everything.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build run cluster cluster-demo simulate test check test-rust deny docs clean

# Where rustup puts cargo, also in the run that installs it.
export PATH := $(PATH):$(HOME)/.cargo/bin

# RocksDB's C++ is compiled once per machine; every build links that archive.
CARGO = rocksdb=$$(tools/rocksdb.sh) && ROCKSDB_LIB_DIR=$$rocksdb ROCKSDB_STATIC=1 cargo

help:
	@echo 'make run      install what is missing, build, start the broker (ARGS="--set tls.required=false" adds flags)'
	@echo 'make cluster  start three cores and two edges on this machine, for people to try'
	@echo 'make cluster-demo  kill cores of such a cluster under load, and see that no device notices; a minute'
	@echo 'make build    leave target/release/heronry and target/release/heronry-loadtest'
	@echo 'make simulate whole nodes in virtual time, SEEDS=1000 of them'
	@echo 'make test     formatting, lints, licences, and every test'
	@echo 'make check    formatting and lints only'
	@echo 'make docs     write the pages that the program generates'
	@echo 'make deny     check licences and sources of dependencies, installing cargo-deny first'

setup:
	@tools/setup.sh

build: setup
	@$(CARGO) build --release -p heronry-node -p heronry-loadtest
	@tools/link-release.sh heronry heronry-loadtest

run: build
	@exec target/release/heronry run $(ARGS)

cluster: build
	@exec tools/cluster.sh

cluster-demo: build
	@exec tools/cluster-demo.sh

# Whole nodes in virtual time: SEEDS=5000 FIRST=1 TROUBLES=Killed,Mute (all: everything).
simulate: setup
	@export HERON_SEEDS=$(or $(SEEDS),1000) HERON_FIRST=$(or $(FIRST),1) $(if $(TROUBLES),HERON_TROUBLES=$(TROUBLES)); \
	  $(CARGO) test --quiet -p heronry-node --lib node::simulation::seeds -- --nocapture --test-threads $$(nproc)

test: setup check test-rust
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; else \
	  echo 'heronry: cargo-deny is not installed, licences were not checked (make deny installs it)'; fi

check:
	@cargo fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

test-rust:
	@tools/venv.sh >/dev/null
	@tools/npm.sh >/dev/null
	@tools/prometheus.sh
	@tools/nextest.sh
	@$(CARGO) nextest run --workspace
	@$(CARGO) test --workspace --doc --quiet

deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	@cargo deny check bans licenses sources

docs:
	@export UPDATE_EXPECT=1; $(CARGO) test --quiet -p heronry-node --lib the_page_is_up_to_date
	@export UPDATE_EXPECT=1; $(CARGO) test --quiet -p heronry-node --test it the_table_of_extensions

clean:
	@cargo clean
	@rm -f target/release/heronry target/release/heronry-loadtest
