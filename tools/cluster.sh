#!/usr/bin/env bash
# tools/cluster.sh [PROGRAM] [DIRECTORY]: five nodes on this machine, for people to try. Three cores hold the shards, two edges hold
# the sockets. Ctrl-C ends them; their data stays in DIRECTORY (./heronry-cluster), and the next start goes on from there.
set -euo pipefail
cd "$(dirname "$0")/.."
heronry=${1:-target/release/heronry}
data=${2:-./heronry-cluster}
seeds=127.80.0.1:5269,127.80.0.2:5269,127.80.0.3:5269
mkdir -p "$data"
declare -A pids

# Starts node $1 with the role $2.
start() {
  local node=$1 role=$2
  shift 2
  "$heronry" run --data "$data/$role-$node" --set "roles=$role" --set "admin.listen=127.80.0.$node:5280" \
    --set "edge.c2s=127.80.0.$node:5222" --set "edge.c2s_tls=127.80.0.$node:5223" \
    --set "peer.listen=127.80.0.$node:5269" --set "peer.seeds=$seeds" "$@" >>"$data/$role-$node.log" 2>&1 &
  pids[$node]=$!
}

stop() {
  trap - EXIT INT TERM
  echo 'ending the nodes'
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
}
trap stop EXIT
trap 'exit 0' INT TERM

ask() { "$heronry" "${@:3}" --data "$data/$2-$1" --set "admin.listen=127.80.0.$1:5280"; }

for node in 1 2 3; do start "$node" core --set peer.bootstrap=3; done
for node in 4 5; do start "$node" edge; done
echo "five nodes are starting; what they say is in $data/*.log"
until ask 4 edge status >/dev/null 2>&1 && ask 5 edge status >/dev/null 2>&1; do
  kill -0 "${pids[4]}" "${pids[5]}" || { echo "an edge has ended: see $data" >&2; exit 1; }
  sleep 0.2
done
cat <<E2
the cluster serves

  devices log in at  127.80.0.4:5222 and 127.80.0.5:5222 (TLS from the start: port 5223)
  look at a node     $heronry status --data $data/core-1 --set admin.listen=127.80.0.1:5280
  kill a core        kill -9 ${pids[1]}   (or ${pids[2]}, or ${pids[3]}): no device notices
E2

wait
