#!/bin/bash
# stop.sh DIR: stops the server that a start script recorded in DIR/pid.
# Asks first, insists after 10 s. A server that is not there is no error.
set -euo pipefail
dir=$1
[ -e "$dir/pid" ] || exit 0
read -r pid mark <"$dir/pid"

running() {
  case $(ps -o stat= -p "$pid" 2>/dev/null) in '' | Z*) return 1 ;; esac
  ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -- "$mark"
}

if running; then
  kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    running || break
    sleep 0.1
  done
  if running; then kill -KILL "$pid" 2>/dev/null || true; fi
fi
rm -f "$dir/pid"
