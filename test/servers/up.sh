#!/bin/bash
# up.sh [NAME...]: starts the real servers of a whole stack on loopback and leaves
# them running; down.sh ends them. NAME is postgres, redis, bao, milvus, s3, llm or
# embed; without any, all seven. One that runs already is left alone. Each has the
# port and the data it had when it was up before.
#
# Prints, and writes to SERVERS_HOME/env, the variables of those that run. What
# the gateway can be configured with goes to SERVERS_HOME/bulkhead.yaml.
# Ends with 1 if one could not be started; the others run all the same.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
unset OWNER_PID # they outlive this script

all=(postgres redis bao milvus s3 llm embed)
[ $# -gt 0 ] || set -- "${all[@]}"
up=$SERVERS_HOME/up
mkdir -p "$up"
chmod 711 "$up" # the database runs as another user

# is_up NAME: whether its process is there.
is_up() {
  local pid mark
  [ -e "$up/$1/pid" ] && read -r pid mark <"$up/$1/pid" && running "$pid" "$mark"
}

# begin NAME: starts it, noting how long that took.
begin() {
  local since=$EPOCHREALTIME
  BAO_MODE=raft "$here/start-$1.sh" "$up/$1" >/dev/null 2>"$up/$1.err" || return 1
  awk -v name="$1" -v a="$since" -v b="$EPOCHREALTIME" 'BEGIN {printf "%-9s %5.1f s\n", name, b - a}' >&2
}

for name in "$@"; do
  case " ${all[*]} " in *" $name "*) ;; *)
    echo "no such server: $name; there are ${all[*]}" >&2
    exit 2
    ;;
  esac
done
declare -A started
failed=
for name in "$@"; do
  is_up "$name" || { begin "$name" & started[$name]=$!; }
done
for name in "${!started[@]}"; do
  wait "${started[$name]}" || { failed="$failed $name"; echo "$name did not start:" >&2; tail -n 20 "$up/$name.err" >&2; }
done

# have NAME: whether it runs; then its variables are set here.
have() { is_up "$1" && . "$up/$1/env"; }

# The owner of the gateway's database, as docs/operations.md has it: no superuser.
prepare_database() {
  local psql
  psql=$(command -v psql) || return 1
  "$psql" -q -v ON_ERROR_STOP=1 "$POSTGRES_URL" <<'SQL'
SELECT 'CREATE ROLE bulkhead_owner LOGIN CREATEROLE PASSWORD ''owner''' WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'bulkhead_owner') \gexec
SELECT 'CREATE DATABASE bulkhead OWNER bulkhead_owner' WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = 'bulkhead') \gexec
SQL
}

configuration() {
  echo "# Made by $0 for gateways on the servers that it has started."
  echo "data: $up/gateway"
  if have postgres; then
    local at=${POSTGRES_URL#*@}
    echo "postgres_owner_url: postgres://bulkhead_owner:owner@${at/\/postgres/\/bulkhead}"
    echo "postgres_url: postgres://gateway:gateway@${at/\/postgres/\/bulkhead}"
  fi
  if have redis; then echo "redis_url: $REDIS_URL"; fi
  if have bao; then printf '%s\n' "vault_addr: $VAULT_ADDR" "vault_token: file:$up/bao/token"; fi
  if have llm || have embed; then echo "providers:"; fi
  if have llm; then echo "  smollm: {kind: custom, base_url: $LLM_BASE_URL} # model smollm/$LLM_MODEL"; fi
  if have embed; then echo "  minilm: {kind: custom, base_url: $EMBEDDINGS_BASE_URL} # model minilm/$EMBEDDINGS_MODEL"; fi
}

if have postgres; then prepare_database || failed="$failed database"; fi
umask 077
configuration >"$SERVERS_HOME/bulkhead.yaml"
for name in "${all[@]}"; do
  if is_up "$name"; then cat "$up/$name/env"; fi
done >"$SERVERS_HOME/env"
cat "$SERVERS_HOME/env"
echo "written to $SERVERS_HOME/env; a gateway on them:" >&2
if have postgres; then echo "  bin/gateway migrate -config $SERVERS_HOME/bulkhead.yaml" >&2; fi
echo "  bin/gateway serve -config $SERVERS_HOME/bulkhead.yaml" >&2
[ -z "$failed" ] || { echo "not started:$failed" >&2; exit 1; }
