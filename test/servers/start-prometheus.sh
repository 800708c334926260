#!/bin/bash
# start-prometheus.sh DIR [PORT]: Prometheus.
#
# Prints its URL. DIR/env: PROMETHEUS_URL, PROMETHEUS_PID. See lib.sh for what the
# scripts have in common.
# PROMETHEUS_CONFIG: its configuration file, read anew on SIGHUP; default one with
# which it watches itself, every second.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 curl flock ps

promtool=$("$here/promtool.sh")
mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
config=${PROMETHEUS_CONFIG:-$dir/prometheus.yml}
[ -n "${PROMETHEUS_CONFIG:-}" ] || cat >"$config" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["127.0.0.1:$port"]}]
YAML
"$promtool" check config "$config" >"$dir/log" 2>&1 || give_up "$dir"
setsid "${promtool%promtool}prometheus" --config.file="$config" --storage.tsdb.path="$dir/data" \
  --web.listen-address="127.0.0.1:$port" --log.level=warn >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "--storage.tsdb.path=$dir/data"
stop_with_owner "$dir"
wait_for 30 "$pid" curl -sf "http://127.0.0.1:$port/-/ready" || give_up "$dir"
publish "$dir" "PROMETHEUS_URL=http://127.0.0.1:$port" "PROMETHEUS_PID=$pid"
