#!/usr/bin/env bash
# The JetStream introduction with the nats command line tool, against the server whose URL is the only argument.
# NATS_CLI names the tool. Ends with 0 if the server agreed with everything, else with 1 and what differed.
set -uo pipefail

url=$1
tool=${NATS_CLI:-nats}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CONFIG_HOME=$work HOME=$work NATS_URL=$url NO_COLOR=1
failures=0
checks=0

# check WANTED... -- ARGUMENT...: the tool must succeed and print every wanted text.
check() {
  local wanted=() output status
  while [ "$1" != -- ]; do wanted+=("$1"); shift; done
  shift
  output=$(timeout 60 "$tool" "$@" 2>&1 </dev/null)
  status=$?
  judge "nats $*" "$status" "$output" "${wanted[@]}"
}

# judge WHAT STATUS OUTPUT WANTED...
judge() {
  local what=$1 status=$2 output=$3 text
  shift 3
  checks=$((checks + 1))
  if [ "$status" -ne 0 ]; then
    failures=$((failures + 1))
    printf 'FAILED: %s\nended with %s and said:\n%s\n\n' "$what" "$status" "$output"
    return
  fi
  for text in "$@"; do
    if ! grep -qF -- "$text" <<<"$output"; then
      failures=$((failures + 1))
      printf 'FAILED: %s\nexpected to read: %s\nbut it said:\n%s\n\n' "$what" "$text" "$output"
      return
    fi
  done
}

# field FILTER WANTED -- ARGUMENT...: the tool must print JSON in which FILTER (an expression on d) is WANTED.
field() {
  local filter=$1 wanted=$2 output status
  shift 3
  output=$(timeout 60 "$tool" "$@" 2>"$work/errors" </dev/null)
  status=$?
  if [ $status -eq 0 ] && command -v python3 >/dev/null; then
    output=$(python3 -c "import json,sys; d=json.load(sys.stdin); print($filter)" <<<"$output" 2>&1)
  elif [ $status -eq 0 ]; then
    output=$wanted # without python3 the exit status is all there is to judge
  else
    output="$output$(cat "$work/errors")"
  fi
  judge "nats $*: $filter" "$status" "=$output=" "=$wanted="
}

# Streams and messages.
check "$url" 's' -- rtt
check 'Streams' -- account info
check 'No Streams defined' -- stream ls
check 'Stream shop_orders was created' 'Subjects: orders.>' -- stream add shop_orders --subjects 'orders.>' --defaults
for i in 0 1 2 3 4 5 6 7 8 9; do
  check 'Stored in Stream: shop_orders' -- publish "orders.new.$i" "{\"OrderId\":$i}" --jetstream
done
check 'shop_orders' '10' -- stream ls
check 'shop_orders' -- stream report
field 'd["state"]["messages"]' 10 -- stream info shop_orders --json
field 'd["config"]["subjects"]' "['orders.>']" -- stream info shop_orders --json
check 'Messages: 10' 'First Sequence: 1' 'Last Sequence: 10' -- stream info shop_orders
check 'orders.new.3' -- stream subjects shop_orders
check 'on Subject orders.new.2' '{"OrderId":2}' -- stream get shop_orders 3
check 'orders.new.9' -- stream get shop_orders --last-for orders.new.9

# Consumers.
check 'order_processor' 'Unprocessed Messages: 10' -- consumer add shop_orders order_processor --pull --ack explicit --defaults
check 'order_processor' 'Pull' 'Explicit' '10' -- consumer report shop_orders
check 'order_processor' -- consumer ls shop_orders
for i in 0 1 2 3 4 5 6; do
  check "{\"OrderId\":$i}" -- consumer next shop_orders order_processor --raw --ack
done
check '{"OrderId":7}' -- consumer next shop_orders order_processor --count 3
field 'd["num_pending"]' 0 -- consumer info shop_orders order_processor --json
field 'd["ack_floor"]["stream_seq"]' 10 -- consumer info shop_orders order_processor --json
check 'Outstanding Acks: 0' 'Unprocessed Messages: 0' -- consumer info shop_orders order_processor
check 'Paused' -- consumer pause shop_orders order_processor 1h --force
check 'was resumed' -- consumer resume shop_orders order_processor --force
check 'edited' -- consumer edit shop_orders order_processor --description edited --force

# Changes.
check 'Maximum Messages: 8' -- stream edit shop_orders --max-msgs 8 --force
check 'Messages: 8' -- stream info shop_orders
check 'Messages: 7' -- stream purge shop_orders --seq 4 --force
check '' -- stream rmm shop_orders 5 --force
field 'd["state"]["num_deleted"]' 1 -- stream info shop_orders --json
check 'copy' -- stream copy shop_orders copy --subjects 'copied.>'
check 'Received' -- backup stream shop_orders "$work/backup" --no-progress
check '' -- stream rm shop_orders --force
check 'Restored stream "shop_orders"' -- backup restore stream "$work/backup" --no-progress
field 'd["state"]["messages"]' 6 -- stream info shop_orders --json

# Requests.
timeout 30 "$tool" reply help 'here you are' --count 1 >/dev/null 2>&1 &
answered=1
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if output=$(timeout 10 "$tool" request help me --raw --timeout 2s 2>&1) && [ "$output" = 'here you are' ]; then
    answered=0
    break
  fi
done
judge 'nats request help' $answered "$output" 'here you are'
wait

# Key-value and object stores.
check 'CONFIG' 'History Kept: 5' -- kv add CONFIG --history 5
check 'red' -- kv put CONFIG color red
check 'blue' -- kv put CONFIG color blue
check 'blue' -- kv get CONFIG color --raw
check 'green' -- kv update CONFIG color green 2
check 'large' -- kv create CONFIG size large
check 'color' 'size' -- kv ls CONFIG
check 'red' 'blue' 'green' -- kv history CONFIG color
check '' -- kv del CONFIG size --force
check 'CONFIG' -- kv ls
check 'CONFIG' 'Values Stored: 5' -- kv status CONFIG
check '' -- kv rm CONFIG --force
head -c 300000 /dev/urandom >"$work/file"
check 'FILES' -- object add FILES
check 'FILES' -- object put FILES "$work/file" --name file --force --no-progress
check 'file' '293 KiB' -- object ls FILES
check 'file' -- object info FILES file
check '' -- object get FILES file --output "$work/again" --force --no-progress
cmp -s "$work/file" "$work/again"
judge 'the object read back' $? 'differs'
check '' -- object del FILES file --force
check '' -- object rm FILES --force

# Batches and schedules.
check 'BATCHES' -- stream add BATCHES --subjects 'batch.*' --defaults --allow-batch --allow-schedules
output=$(printf 'one\ntwo\nthree\n' | timeout 60 "$tool" pub --jetstream --atomic --send-on newline batch.a 2>&1)
judge 'nats pub --atomic' $? "$output" 'Messages: 3 Sequence: 3'
check 'Stored in Stream' -- pub --jetstream batch.s now -H 'Nats-Schedule:@at 2020-01-01T00:00:00Z' -H 'Nats-Schedule-Target:batch.t'
for _ in $(seq 100); do
  "$tool" stream get BATCHES --last-for batch.t >"$work/due" 2>&1 && break
done
judge 'what a schedule produces' $? "$(cat "$work/due")" 'Nats-Scheduler: batch.s' 'now'
check '' -- stream rm BATCHES --force

# Benchmarks, small.
check 'msgs/sec' -- bench pub bench.subject --msgs 2000 --size 64 --no-progress
check 'msgs/sec' -- bench js pub sync bench.js --create --msgs 300 --size 64 --no-progress
check 'msgs/sec' -- bench js pub async bench.js --msgs 3000 --size 64 --batch 100 --no-progress
check 'msgs/sec' -- bench js ordered --msgs 3300 --no-progress
check 'msgs/sec' -- bench js consume --msgs 3300 --no-progress
check 'msgs/sec' -- bench js pub async bench.js --msgs 3300 --size 64 --batch 100 --purge --no-progress
check 'msgs/sec' -- bench js fetch --msgs 3300 --batch 100 --no-progress
check 'msgs/sec' -- bench js pub atomic bench.js --msgs 3000 --size 64 --batch 100 --purge --no-progress
field 'd["state"]["messages"]' 3000 -- stream info benchstream --json
check 'msgs/sec' -- bench js pub fast bench.js --msgs 3000 --size 64 --clients 3 --purge --no-progress
field 'd["state"]["messages"]' 3000 -- stream info benchstream --json
check 'msgs/sec' -- bench kv put --msgs 300 --no-progress
check 'msgs/sec' -- bench kv get --msgs 300 --no-progress
check '' -- stream rm benchstream --force

# Health.
check 'OK' -- server check connection
check 'OK' -- server check jetstream
check 'OK' -- server check stream --stream shop_orders --peer-expect 0
check 'OK' -- server check request --subject '$JS.API.INFO' --payload ''
check '' -- stream rm copy --force
check '' -- stream rm shop_orders --force
check 'No Streams defined' -- stream ls

printf '%s checks, %s failed\n' "$checks" "$failures"
[ "$failures" -eq 0 ]
