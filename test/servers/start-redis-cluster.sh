#!/bin/bash
# start-redis-cluster.sh DIR [PORT]: Redis Cluster: three masters, the first on
# PORT, and a replica of each, which takes over two seconds after its master is
# gone.
#
# Prints the addresses of the masters. DIR/env: REDIS_CLUSTER, the same;
# REDIS_NODES (the masters first) and REDIS_PIDS in the same order, separated by
# commas. Run again, it starts the nodes that are gone and leaves the others alone.
# REDIS_PASSWORD: default none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/redis.sh"

mkdir -p "$1"
dir=$(cd "$1" && pwd)
# Six for clients, then six for the nodes among themselves.
if [ ! -e "$dir/ports" ]; then
  free_ports 12 | { if [ -n "${2:-}" ]; then sed "1s/.*/$2/"; else cat; fi; } >"$dir/ports"
fi
mapfile -t ports <"$dir/ports"
nodes=("${ports[@]:0:6}")
mapfile -t lines < <(redis_lines)

for i in "${!nodes[@]}"; do
  redis_start "$dir" "${nodes[i]}" "${lines[@]}" 'cluster-enabled yes' "cluster-port ${ports[i + 6]}" \
    'cluster-config-file nodes.conf' 'cluster-node-timeout 2000' 'cluster-announce-ip 127.0.0.1'
done
stop_with_owner "$dir"
first=${nodes[0]}

node() { redis-cli -h 127.0.0.1 -p "$@"; }
members=()
for port in "${nodes[@]}"; do members+=("127.0.0.1:$port"); done
[[ $(node "$first" cluster info) == *cluster_known_nodes:6* ]] ||
  node "$first" --cluster create "${members[@]}" --cluster-replicas 1 --cluster-yes >"$dir/log" 2>&1 || give_up "$dir"

# Every node knows all slots and all roles, and every master is followed by a
# replica that has its data.
complete() {
  local port
  for port in "${nodes[@]}"; do
    [[ $(node "$port" cluster info) == *cluster_state:ok* ]] || return 1
    [ "$(node "$port" cluster nodes | grep -v fail | grep -cw slave)" = 3 ] || return 1
    [[ $(node "$port" info replication) =~ connected_slaves:1|master_link_status:up ]] || return 1
  done
}
wait_for 60 "$(cat "$dir/$first/pid")" complete || give_up "$dir" "$dir/$first/log"
publish "$dir" "REDIS_CLUSTER=$(redis_nodes "${nodes[@]:0:3}")" \
  "REDIS_NODES=$(redis_nodes "${nodes[@]}")" "REDIS_PIDS=$(redis_pids "$dir" "${nodes[@]}")"
