#!/bin/bash
# down.sh: ends the servers that up.sh has started, and no others. What they have
# stored stays in SERVERS_HOME/up.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

for pid in "$SERVERS_HOME"/up/*/pid; do
  [ ! -e "$pid" ] || "$here/stop.sh" "$(dirname "$pid")" &
done
wait
rm -f "$SERVERS_HOME/env" "$SERVERS_HOME/bulkhead.yaml"
