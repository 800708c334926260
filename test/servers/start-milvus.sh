#!/bin/bash
# start-milvus.sh DIR [PORT]: Milvus, standalone with everything it needs inside:
# gRPC and HTTP on one port.
#
# Prints its address. DIR/env: MILVUS_ADDR; MILVUS_PID, the process that clients
# talk to; MILVUS_SERVER_PID, the server behind it. Freeze the first and clients
# hang; kill the second and both end. See lib.sh for what the scripts have in common.
# MILVUS_TICK_MS: how often the server ticks. A strongly consistent search waits
# for a tick, so this is its latency; default the server's own, 200.
# MILVUS_SESSION_TTL: seconds that a killed server is believed alive, and that one on a
# busy machine may be kept waiting before it takes itself for dead and ends; default 10.
# Takes Linux, and root or user namespaces. The first run downloads about 60 MB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 flock ps

package=milvus==2.3.5
venv=$SERVERS_HOME/venv-milvus
export MILVUS_PROGRAMS=$venv/programs

install_milvus() {
  fresh_venv "$venv" &&
    "$venv/bin/pip" install -q --no-input "$package" &&
    "$venv/bin/python" -c 'import milvus, sys; milvus._initialize_data_files(sys.argv[1])' "$MILVUS_PROGRAMS"
}
installed milvus "$package" install_milvus

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
# For one server alone, in seconds: see above, and how long one that is stopped looks
# for another to take its work.
settings=("common.session.ttl=${MILVUS_SESSION_TTL:-10}" common.gracefulStopTimeout=1)
if [ -n "${MILVUS_TICK_MS:-}" ]; then settings+=("proxy.timeTickInterval=$MILVUS_TICK_MS"); fi

rm -f "$dir/server.pid"
setsid "$venv/bin/python" "$here/milvus_server.py" "$dir" "$port" "${settings[@]}" >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "milvus_server.py $dir $port"
stop_with_owner "$dir"
wait_for 120 "$pid" test -s "$dir/server.pid" || give_up "$dir"
publish "$dir" "MILVUS_ADDR=127.0.0.1:$port" "MILVUS_PID=$pid" "MILVUS_SERVER_PID=$(cat "$dir/server.pid")"
