#!/usr/bin/env bash
# Compiles RocksDB's C++ once per machine and prints the directory that holds librocksdb.a.
#
# Cargo would compile it again for every profile and target directory (16-24 minutes each on two cores), so the archive
# is made outside all of them, keyed by the version of librocksdb-sys in Cargo.lock, and every build is pointed at it with
# ROCKSDB_LIB_DIR and ROCKSDB_STATIC=1 (see Makefile). HERONRY_CACHE moves the place. Progress goes to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)
[ -n "$version" ] || { echo "rocksdb.sh: librocksdb-sys is not in Cargo.lock" >&2; exit 1; }
cache=${HERONRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/heronry}
dir=$cache/rocksdb-$version
if [ -f "$dir/librocksdb.a" ]; then echo "$dir"; exit 0; fi

mkdir -p "$dir/build/src"
exec 9>"$dir/lock"
flock 9
if [ -f "$dir/librocksdb.a" ]; then echo "$dir"; exit 0; fi

cat >&2 <<TXT
heronry: compiling RocksDB ${version#*+} (C++, about 340 files). This happens once per machine and takes
         16-24 minutes on two cores. The archive is kept in $dir
TXT
cat >"$dir/build/Cargo.toml" <<TOML
[package]
name = "rocksdb-archive"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
librocksdb-sys = { version = "=${version%%+*}", default-features = false, features = ["lz4", "bindgen-runtime"] }
TOML
echo 'fn main() {}' >"$dir/build/src/main.rs"

# RocksDB checksums every block with CRC32C; without these two features (every x86-64 machine since 2011 has them) it
# does so in software.
case $(uname -m) in
  x86_64) export RUSTFLAGS="-Ctarget-feature=+sse4.2,+pclmulqdq" ;;
  *) unset RUSTFLAGS ;;
esac
command -v clang++ >/dev/null && export CXX=clang++ CC=clang
unset ROCKSDB_LIB_DIR ROCKSDB_STATIC CARGO_BUILD_TARGET

started=$(date +%s)
(
  cd "$dir/build"
  CARGO_TARGET_DIR=$dir/build/target CARGO_PROFILE_RELEASE_OPT_LEVEL=2 nice -n 5 \
    cargo build --release --quiet >"$dir/build.log" 2>&1
) &
builder=$!
trap 'kill "$builder" 2>/dev/null || true' EXIT
while kill -0 "$builder" 2>/dev/null; do
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$builder" 2>/dev/null || break; sleep 3; done
  # Before cargo has fetched the sources there is no such directory: that is no reason to give up.
  done_files=$({ find "$dir/build/target" -path '*librocksdb-sys*' -name '*.o' 2>/dev/null || true; } | wc -l)
  echo "heronry: RocksDB $done_files of about 340 files, $((($(date +%s) - started) / 60)) min" >&2
done
if ! wait "$builder"; then
  echo "heronry: RocksDB did not compile; the end of $dir/build.log:" >&2
  tail -n 30 "$dir/build.log" >&2
  exit 1
fi
archive=$(find "$dir/build/target" -name librocksdb.a | head -n 1)
cp "$archive" "$dir/librocksdb.a.new"
mv "$dir/librocksdb.a.new" "$dir/librocksdb.a"
rm -rf "$dir/build"
echo "heronry: RocksDB is ready after $((($(date +%s) - started) / 60)) min" >&2
echo "$dir"
