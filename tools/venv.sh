#!/usr/bin/env bash
# Makes the Python environment of the interoperability tests when it is absent, and prints the path of its interpreter.
# It is kept outside the clone, keyed by the list of packages, so that every worktree and every run shares it.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=node/tests/interop/requirements.txt
cache=${HERONRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/heronry}
venv=$cache/venv-$(sha256sum "$requirements" | cut -c 1-12)
if [ ! -f "$venv/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$venv.lock"
  flock 9
  if [ ! -f "$venv/complete" ]; then
    echo "heronry: installing $(grep -v '^#' "$requirements" | tr '\n' ' ')for the interoperability tests" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    touch "$venv/complete"
  fi
fi
echo "$venv/bin/python"
