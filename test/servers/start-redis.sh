#!/bin/bash
# start-redis.sh DIR [PORT]: Redis, one node.
#
# Prints its URL. DIR/env: REDIS_URL, REDIS_ADDR, REDIS_PID. See lib.sh for what
# the scripts have in common and redis.sh for the settings.
# REDIS_PASSWORD: what clients have to say; default none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/redis.sh"

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
if [ -e "$dir/$port/redis.conf" ]; then rm "$dir/$port/redis.conf"; fi # the password may be another now
mapfile -t lines < <(redis_lines)
redis_start "$dir" "$port" "${lines[@]}"
stop_with_owner "$dir"
publish "$dir" "REDIS_URL=redis://${REDIS_PASSWORD:+:$REDIS_PASSWORD@}127.0.0.1:$port/0" \
  "REDIS_ADDR=127.0.0.1:$port" "REDIS_PID=$(cat "$dir/$port/pid")"
