#!/usr/bin/env bash
# Installs the JavaScript client of the interoperability tests when it is absent, and prints the directory of its modules.
# It is kept outside the clone, keyed by the list of packages, so that every worktree and every run shares it.
set -euo pipefail
cd "$(dirname "$0")/.."
package=node/tests/interop/package.json
cache=${HERONRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/heronry}
modules=$cache/npm-$(sha256sum "$package" | cut -c 1-12)
if [ ! -f "$modules/complete" ]; then
  command -v npm >/dev/null || { echo "heronry: npm is needed for the tests with xmpp.js: install Node.js 20 or newer" >&2; exit 1; }
  mkdir -p "$cache"
  exec 9>"$modules.lock"
  flock 9
  if [ ! -f "$modules/complete" ]; then
    echo "heronry: installing xmpp.js for the interoperability tests" >&2
    rm -rf "$modules"
    mkdir -p "$modules"
    cp "$package" "$modules/"
    (cd "$modules" && npm install --silent --no-audit --no-fund --no-package-lock >&2)
    touch "$modules/complete"
  fi
fi
echo "$modules/node_modules"
