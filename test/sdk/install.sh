#!/bin/bash
# install.sh: installs the official OpenAI SDKs, in the versions pinned beside
# this file, below SERVERS_HOME. Quick when that was done before.
#
# Prints two lines, `python=PATH` and `node_modules=PATH`. With the argument
# `python` or `node` only that one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../servers/lib.sh"
need flock sha256sum

venv=$SERVERS_HOME/venv-sdk
node=$SERVERS_HOME/node-sdk

install_python() {
  fresh_venv "$venv" &&
    "$venv/bin/pip" install -q --no-input --no-deps -r "$here/requirements.txt" &&
    "$venv/bin/python" -c 'import openai'
}

install_node() {
  rm -rf "$node" && mkdir -p "$node" &&
    cp "$here/package.json" "$here/package-lock.json" "$node/" &&
    (cd "$node" && npm ci --silent --no-audit --no-fund --ignore-scripts) &&
    (cd "$node" && node --input-type=module -e 'await import("openai")')
}

# The version is the content of what pins it.
pin() { cat "$@" | sha256sum | cut -c1-16; }

case ${1:-all} in python | all)
  need python3
  installed sdk-python "$(pin "$here/requirements.txt")" install_python
  echo "python=$venv/bin/python"
  ;;
esac
case ${1:-all} in node | all)
  need node npm
  installed sdk-node "$(pin "$here/package.json" "$here/package-lock.json")" install_node
  echo "node_modules=$node/node_modules"
  ;;
esac
