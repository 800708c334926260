#!/bin/bash
# start-postgres.sh DIR [PORT]: PostgreSQL on 127.0.0.1:PORT.
#
# Prints the URL of its superuser. DIR/env: POSTGRES_URL, the same; POSTGRES_PID of
# the server itself, not the one in DIR/pid. See lib.sh for what the scripts have
# in common. With OWNER_PID what is in DIR goes when that process ends, and nothing
# is written through to the disk (fsync is off).
#
# The server is Debian's package, installed if there is none. Started by root it
# runs as user postgres, because it refuses to run as root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 flock setsid ps

# newest_bin: the programs of the newest PostgreSQL on this machine.
newest_bin() { find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1; }

install_postgres() {
  [ -z "$(newest_bin)" ] || return 0
  apt_install postgresql
}
[ -n "$(newest_bin)" ] || installed postgres debian install_postgres
bin=$(newest_bin)
[ -n "$bin" ] || { echo "PostgreSQL is not installed" >&2; exit 1; }

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
as=()
if [ "$(id -u)" = 0 ]; then
  as=(setpriv --reuid=postgres --regid=postgres --init-groups)
  chown postgres "$dir"
  "${as[@]}" test -w "$dir" || { echo "user postgres cannot reach $dir" >&2; exit 1; }
fi
cd /

options=(-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200)
if [ -n "${OWNER_PID:-}" ]; then
  options+=(-c fsync=off -c synchronous_commit=off -c full_page_writes=off)
fi
if [ ! -e "$dir/data/PG_VERSION" ]; then
  # Only this machine reaches the server, and whoever may read DIR its password.
  (umask 077 && printf 'postgres\n' >"$dir/password")
  [ "$(id -u)" != 0 ] || chown postgres "$dir/password"
  "${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres --pwfile="$dir/password" -A scram-sha-256 \
    -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/log" 2>&1 || { tail -n 20 "$dir/log" >&2; exit 1; }
fi
# The recorded process is one that turns the polite signal into the server's fast
# end: asked politely itself, the server would wait for its clients to leave.
setsid bash -c '
  owner=$1 dir=$2
  shift 2
  "$@" &
  server=$!
  trap "kill -INT $server; wait $server" TERM
  while kill -0 "$server" 2>/dev/null; do
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then kill -INT "$server"; fi
    sleep 1 &
    wait $! || true
  done
  if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
    rm -rf "$dir/data" "$dir/log" "$dir/password" "$dir/pid" "$dir/port" "$dir/env"
    rmdir "$dir"
  fi
' supervise "${OWNER_PID:-}" "$dir" "${as[@]}" "$bin/postgres" -D "$dir/data" -p "$port" "${options[@]}" \
  >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "$dir/data -p $port"
wait_for 30 "$pid" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" || give_up "$dir"
publish "$dir" "POSTGRES_URL=postgres://postgres:postgres@127.0.0.1:$port/postgres?sslmode=disable" \
  "POSTGRES_PID=$(head -n 1 "$dir/data/postmaster.pid")"
