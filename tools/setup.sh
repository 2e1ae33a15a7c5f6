#!/usr/bin/env bash
# Installs what building and testing need and this machine does not have: Debian packages, and Rust when there is no cargo.
# Says what it installs; says nothing when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "heronry: $*" >&2; }
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else say "this needs root: $*"; exit 1
  fi
}

# clang and libclang compile and bind RocksDB, mold links, python3-venv is for the interoperability tests; iproute2, nftables and
# e2fsprogs are for tests that cut wires and freeze disks.
needed=(g++ make curl ca-certificates clang libclang-dev mold python3-venv iproute2 nftables e2fsprogs)
if command -v dpkg-query >/dev/null; then
  missing=()
  for package in "${needed[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  fi
else
  for program in g++ make curl clang mold python3; do
    command -v "$program" >/dev/null || { say "not a Debian system: install what gives '$program', and libclang"; exit 1; }
  done
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
  say "installing Rust with rustup, for this user"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy >&2 ||
    { say "Rust could not be installed: install it by hand (rustup.rs says how) and run this again"; exit 1; }
fi
# The Makefile calls cargo by name, also in the very run that installed it.
cargo=$(command -v cargo || echo "$HOME/.cargo/bin/cargo")
found=$("$cargo" --version | awk '{print $2}')
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  say "Rust $wanted or newer is needed, $cargo is $found: run 'rustup update stable'"
  exit 1
fi
