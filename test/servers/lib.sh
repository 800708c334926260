# Shared by the scripts in this folder and test/sdk; to be sourced by bash.
#
# SERVERS_HOME is where everything is installed once and found again:
# ~/.cache/bulkhead-servers, or for root a folder that other users can reach,
# because some servers refuse to run as root.

if [ -z "${SERVERS_HOME:-}" ]; then
  if [ "$(id -u)" = 0 ]; then
    SERVERS_HOME=/var/tmp/bulkhead-servers
  else
    SERVERS_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead-servers
  fi
fi
export SERVERS_HOME
mkdir -p "$SERVERS_HOME"

# need PROGRAM...: fails with the names of the programs that are missing.
need() {
  local p missing=
  for p in "$@"; do command -v "$p" >/dev/null || missing="$missing $p"; done
  [ -z "$missing" ] || { echo "missing programs:$missing" >&2; return 1; }
}

# free_port: prints a loopback port that nobody listens on now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for SECONDS PID COMMAND...: runs COMMAND every 0.1 s until it succeeds.
# It fails when the time is over, and at once when process PID is gone.
wait_for() {
  local left=$(($1 * 10)) pid=$2
  shift 2
  while [ "$left" -gt 0 ]; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    kill -0 "$pid" 2>/dev/null || { echo "process $pid ended before it was ready" >&2; return 1; }
    sleep 0.1
    left=$((left - 1))
  done
  echo "not ready in time: $*" >&2
  return 1
}

# installed NAME VERSION COMMAND...: runs COMMAND unless it was run for this
# VERSION before. One installer of NAME works at a time, the others wait.
installed() {
  local done="$SERVERS_HOME/$1.done" lock="$SERVERS_HOME/$1.lock" version=$2
  shift 2
  [ "$(cat "$done" 2>/dev/null)" != "$version" ] || return 0
  (
    flock 9
    [ "$(cat "$done" 2>/dev/null)" != "$version" ] || exit 0
    rm -f "$done"
    # COMMAND is a function that joins its steps by &&: after || and in
    # conditions bash ignores `set -e`, and a failed step must not be recorded.
    "$@" >&2 && printf '%s\n' "$version" >"$done"
  ) 9>"$lock"
}

# fresh_venv DIR: an empty Python environment.
fresh_venv() { rm -rf "$1" && python3 -m venv "$1"; }

# record DIR PID MARK: writes DIR/pid. MARK is a part of the command line by
# which stop.sh tells the process from a later one with the same number.
record() { printf '%s %s\n' "$2" "$3" >"$1/pid"; }
