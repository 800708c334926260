#!/bin/bash
# stop.sh DIR: stops the processes that a start script recorded in DIR/pid.
# Asks first, insists after 10 s, and reaches those that are frozen (SIGSTOP),
# too. A server that is not there is no error.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
dir=$1
[ -e "$dir/pid" ] || exit 0
mapfile -t recorded <"$dir/pid"

# alive prints the processes that are still there.
alive() {
  local line
  for line in "${recorded[@]}"; do
    if running "${line%% *}" "${line#* }"; then echo "${line%% *}"; fi
  done
}

# tell SIGNAL: sends it to them. One that ended meanwhile is no error.
tell() { alive | xargs -r kill -s "$1" 2>/dev/null || true; }

tell TERM
tell CONT
for _ in $(seq 100); do
  [ -n "$(alive)" ] || break
  sleep 0.1
done
tell KILL
rm -f "$dir/pid"
