#!/usr/bin/env bash
# Installs cargo-nextest when it is absent. Tests rely on it: each is a process of its own, with loopback addresses of its own, and those of whole
# clusters run one at a time (.config/nextest.toml).
set -euo pipefail
command -v cargo-nextest >/dev/null && exit
echo "heronry: installing cargo-nextest, which runs the tests; it is compiled, for some minutes" >&2
cargo install --locked --quiet cargo-nextest
