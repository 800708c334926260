# Shared by the scripts in this folder and test/sdk; to be sourced by bash.
#
# What every start-NAME.sh DIR [PORT] has in common:
#
#   - It installs what it needs once, below SERVERS_HOME or as a package of the
#     system, and never into the project.
#   - The server listens on 127.0.0.1 only and keeps everything in DIR. Started
#     again with the same DIR it has its old port and, but for dev servers that
#     say so, its old data.
#   - When it answers, the script prints its address, and DIR/env has everything
#     a client needs to know, NAME=VALUE in each line.
#   - DIR/pid names its processes, DIR/log says what went wrong, stop.sh DIR ends it.
#   - OWNER_PID: it ends when that process does.
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
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) # this folder

# need PROGRAM...: fails with the names of the programs that are missing.
need() {
  local p missing=
  for p in "$@"; do command -v "$p" >/dev/null || missing="$missing $p"; done
  [ -z "$missing" ] || { echo "missing programs:$missing" >&2; return 1; }
}

# free_port: prints a loopback port that nobody listens on now.
free_port() { free_ports 1; }

# free_ports N: prints N different ones, each in a line.
free_ports() {
  python3 -c '
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held: s.bind(("127.0.0.1", 0))
for s in held: print(s.getsockname()[1])' "$1"
}

# choose_port DIR [PORT]: prints PORT, else the one that DIR had before, else a
# free one, and keeps it in DIR/port.
choose_port() {
  local port=${2:-}
  [ -n "$port" ] || port=$(cat "$1/port" 2>/dev/null) || port=$(free_port)
  echo "$port" | tee "$1/port"
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

# apt_install PACKAGE...: Debian packages, which takes root.
apt_install() {
  [ "$(id -u)" = 0 ] || { echo "not root, so cannot install: $*" >&2; return 1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }
}

# apt_unpack DIR PACKAGE: the files of a Debian package below DIR. Nothing is
# installed, so no root is needed and no service of the package is started.
apt_unpack() {
  local work="$1.deb"
  rm -rf "$1" "$work" && mkdir -p "$work" && cd "$work" &&
    { apt-get download -q "$2" || { apt-get update -q && apt-get download -q "$2"; }; } &&
    dpkg -x "$work"/*.deb "$1" && cd / && rm -rf "$work"
}

# running PID MARK: whether process PID is there and MARK is in its command line.
running() {
  case $(ps -o stat= -p "$1" 2>/dev/null) in '' | Z*) return 1 ;; esac
  [[ $(ps -ww -o args= -p "$1" 2>/dev/null) == *"$2"* ]]
}

# record DIR PID MARK: adds a line to DIR/pid and drops those of processes that
# are gone. MARK is a part of the command line by which stop.sh tells the process
# from a later one with the same number.
record() {
  local pid mark
  {
    if [ -e "$1/pid" ]; then
      while read -r pid mark; do ! running "$pid" "$mark" || echo "$pid $mark"; done <"$1/pid"
    fi
    echo "$2 $3"
  } >"$1/pid.new"
  mv "$1/pid.new" "$1/pid"
}

# stop_with_owner DIR: has stop.sh called when process OWNER_PID has ended, for
# servers that cannot be told whose they are. A server that was stopped is no more
# of its business: it may be started again at any moment.
stop_with_owner() {
  [ -n "${OWNER_PID:-}" ] || return 0
  setsid bash -c 'while kill -0 "$1"; do [ -e "$3/pid" ] || exit 0; sleep 1; done; exec "$2" "$3"' \
    watch "$OWNER_PID" "$scripts/stop.sh" "$1" >/dev/null 2>&1 </dev/null &
}

# give_up DIR [LOG]: ends a script whose server did not come up.
give_up() {
  tail -n 20 "${2:-$1/log}" >&2 || true
  "$scripts/stop.sh" "$1"
  exit 1
}

# publish DIR NAME=VALUE...: writes DIR/env, for its owner's eyes as some values
# are secrets, and prints the first VALUE. No VALUE has characters that bash
# would not take as they are.
publish() {
  local dir=$1
  shift
  (umask 077 && printf '%s\n' "$@" >"$dir/env.new")
  mv "$dir/env.new" "$dir/env"
  echo "${1#*=}"
}
