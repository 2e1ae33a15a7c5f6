#!/usr/bin/env bash
# Installs Debian's package `prometheus` when it is not there: tests scrape a broker with it, try the dashboard's expressions, and
# lint metrics with its promtool. Says what it installs; says nothing when everything is there. No service is started.
set -euo pipefail

say() { echo "heronry: $*" >&2; }
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
command -v apt-get >/dev/null || { say "tests of metrics and dashboards need prometheus and promtool: install them, this is not a Debian system"; exit 1; }
if [ "$(id -u)" = 0 ]; then as_root=()
elif command -v sudo >/dev/null; then as_root=(sudo)
else say "tests of metrics and dashboards need the package prometheus, and installing it needs root: apt-get install prometheus"; exit 1
fi

say "installing prometheus"
# The package would start a service on port 9090 of every address, now and at every boot.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >&2; }
install || { "${as_root[@]}" apt-get update -qq && install; } || { say "prometheus could not be installed"; exit 1; }
if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then "${as_root[@]}" systemctl disable --quiet --now prometheus || true; fi
