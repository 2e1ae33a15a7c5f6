#!/usr/bin/env bash
# tools/cluster-demo.sh [PROGRAMS]: kills core nodes of a cluster on this machine under load, and shows that no device notices. Takes a minute and leaves
# nothing behind. DEVICES=1000 is how many devices talk; PROGRAMS is where heronry and heronry-loadtest are (target/release).
set -euo pipefail
cd "$(dirname "$0")/.."
programs=${1:-target/release}
heronry=$programs/heronry
loadtest=$programs/heronry-loadtest
devices=${DEVICES:-1000}
data=$(mktemp -d "${TMPDIR:-/tmp}/heronry-demo-XXXXXX")
net=127.81.$((RANDOM % 250 + 1))
seeds=$net.1:5269,$net.2:5269,$net.3:5269
declare -A pids
generator=

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
say() { echo "$bold$*$plain"; }

# Starts node $1 with the role $2.
start() {
  local node=$1 role=$2
  shift 2
  "$heronry" run --data "$data/$node" --set "roles=$role" --set "admin.listen=$net.$node:5280" --set "edge.c2s=$net.$node:5222" \
    --set "edge.c2s_tls=$net.$node:5223" --set "peer.listen=$net.$node:5269" --set "peer.seeds=$seeds" "$@" >>"$data/$node.log" 2>&1 &
  pids[$node]=$!
}

stop() {
  local result=$?
  trap - EXIT INT TERM
  [ -z "$generator" ] || kill "$generator" 2>/dev/null || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$data"
  exit "$result"
}
trap stop EXIT
trap 'exit 130' INT TERM

ask() { "$heronry" "${@:2}" --data "$data/$1" --set "admin.listen=$net.$1:5280"; }
led_by() { ask "$1" status --json 2>/dev/null | grep -c '"role": "leader"' || true; }

# Waits until core $1 leads something and has every shard.
settled() {
  until [ "$(led_by "$1")" -gt 0 ]; do sleep 0.3; done
}

say "Five nodes start: three cores hold the shards, each shard on all three; two edges hold the sockets."
for node in 1 2 3; do start "$node" core --set peer.bootstrap=3; done
for node in 4 5; do start "$node" edge; done
until ask 4 status >/dev/null 2>&1 && ask 5 status >/dev/null 2>&1; do
  kill -0 "${pids[@]}" || { cat "$data"/*.log >&2; exit 1; }
  sleep 0.2
done
for node in 1 2 3; do settled "$node"; done

say "$devices devices log in at the edges. Each sends a message to the next one every second, and writes and reads a row of its account."
# All with the password "demo", hashed here once for all.
{
  echo 'jid,mechanism,iterations,salt,stored_key,server_key'
  for ((device = 0; device < devices; device++)); do
    echo "u$device@localhost,SCRAM-SHA-256,4096,aGVyb25yeS1kZW1v,o4f9vckGddBx8jmsaWQQxaNriS0mAuIMMHxwV/jEhF0=,Gp4qwbRHD+lEuH/tHE9wwGMAI1R5t0s3kkJLtbA5hf4="
  done
} >"$data/accounts.csv"
ask 4 user import "$data/accounts.csv" >/dev/null
"$loadtest" steady --server "$net.4:5222" --also "$net.5:5222" --tls starttls --mechanism SCRAM-SHA-256 --password-template demo \
  --devices "$devices" --concurrency 32 --interval 1 --rows-every 10 --duration 45 --watch --history "$data/history.jsonl" \
  >"$data/loadtest.out" 2>&1 &
generator=$!
until [ -s "$data/loadtest.out" ]; do
  kill -0 "$generator" 2>/dev/null || { cat "$data/loadtest.out" >&2; exit 1; }
  sleep 0.2
done
# Its lines, as they come.
tail -n +1 -f --pid="$generator" "$data/loadtest.out" &
sleep 8

# Kills core $1 and starts it again.
kill_and_restart() {
  local core=$1
  say "kill -9: core $core, which led $(led_by "$core") of 16 shards"
  kill -9 "${pids[$core]}"
  wait "${pids[$core]}" 2>/dev/null || true
  sleep 9
  say "core $core starts again, and gets back what it missed and some shards to lead"
  start "$core" core
  settled "$core"
}
kill_and_restart 1
sleep 4
kill_and_restart 2

result=0
wait "$generator" || result=$?
generator=
wait %tail 2>/dev/null || sleep 0.5
say "What the devices saw, compared with what the cluster promises:"
"$loadtest" check "$data/history.jsonl" | sed 's|^.*/||' || result=$?
exit "$result"
