#!/bin/bash
# start-redis-sentinel.sh DIR [PORT]: Redis under Sentinel: a primary on PORT, two
# replicas and three sentinels, two of which have to agree that the primary is
# gone, which takes them a second.
#
# Prints the addresses of the sentinels. DIR/env: REDIS_SENTINELS and
# SENTINEL_PIDS, REDIS_NODES (the first was the first primary) and REDIS_PIDS,
# each list in the same order and separated by commas; REDIS_MASTER, the name to
# ask the sentinels for. Run again, it starts those that are gone and leaves the
# others alone. REDIS_PASSWORD: of the nodes, not of the sentinels; default none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/redis.sh"

mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ ! -e "$dir/ports" ]; then
  free_ports 6 | { if [ -n "${2:-}" ]; then sed "1s/.*/$2/"; else cat; fi; } >"$dir/ports"
fi
mapfile -t ports <"$dir/ports"
nodes=("${ports[@]:0:3}") sentinels=("${ports[@]:3:3}") primary=${ports[0]}
mapfile -t lines < <(redis_lines)

redis_start "$dir" "$primary" "${lines[@]}"
for port in "${nodes[@]:1}"; do
  redis_start "$dir" "$port" "${lines[@]}" "replicaof 127.0.0.1 $primary"
done

watched=("sentinel monitor mymaster 127.0.0.1 $primary 2"
  'sentinel down-after-milliseconds mymaster 1000' 'sentinel failover-timeout mymaster 4000')
if [ -n "${REDIS_PASSWORD:-}" ]; then watched+=("sentinel auth-pass mymaster $REDIS_PASSWORD"); fi
for port in "${sentinels[@]}"; do
  (unset REDISCLI_AUTH && SENTINEL=yes redis_start "$dir" "$port" "${watched[@]}")
done
stop_with_owner "$dir"

# Before the sentinels know the replicas and one another, nothing can fail over.
all_known() {
  local port
  for port in "${sentinels[@]}"; do
    [[ $(redis-cli -h 127.0.0.1 -p "$port" sentinel ckquorum mymaster) == 'OK 3'* ]] &&
      [ "$(redis-cli -h 127.0.0.1 -p "$port" sentinel replicas mymaster | grep -cx name)" = 2 ] || return 1
  done
}
wait_for 30 "$(cat "$dir/${sentinels[0]}/pid")" all_known || give_up "$dir" "$dir/${sentinels[0]}/log"
publish "$dir" "REDIS_SENTINELS=$(redis_nodes "${sentinels[@]}")" REDIS_MASTER=mymaster \
  "REDIS_NODES=$(redis_nodes "${nodes[@]}")" "REDIS_PIDS=$(redis_pids "$dir" "${nodes[@]}")" \
  "SENTINEL_PIDS=$(redis_pids "$dir" "${sentinels[@]}")"
