# Redis nodes, for the start-redis*.sh; to be sourced by bash after lib.sh.
#
# The server is that of this machine, else Debian's package redis-tools, which
# has the program but, unlike the package redis-server, starts no service.

need python3 flock ps

install_redis() {
  { command -v redis-check-rdb >/dev/null || apt_install redis-tools; } && mkdir -p "$SERVERS_HOME/redis" &&
    # One program is the server and the tool; it goes by the name it is called by.
    ln -sf "$(command -v redis-check-rdb)" "$SERVERS_HOME/redis/redis-server" &&
    "$SERVERS_HOME/redis/redis-server" --version
}

redis_server=$(command -v redis-server) || {
  installed redis debian install_redis
  redis_server=$SERVERS_HOME/redis/redis-server
}
need redis-cli

case ${REDIS_PASSWORD:-} in *[!A-Za-z0-9._-]*)
  echo "REDIS_PASSWORD may have letters, digits, '.', '_' and '-' only" >&2
  exit 1
  ;;
esac
export REDISCLI_AUTH=${REDIS_PASSWORD:-}
[ -n "$REDISCLI_AUTH" ] || unset REDISCLI_AUTH

# redis_start DIR PORT LINE...: starts the node DIR/PORT unless it runs, and waits
# until it answers. Its configuration is made of LINEs when it is started for the
# first time; later it is what the node itself has written there.
redis_start() {
  local dir=$1 port=$2 node=$1/$2 pid
  shift 2
  if [ -e "$node/pid" ] && running "$(cat "$node/pid")" "$node/redis.conf"; then return 0; fi
  mkdir -p "$node"
  [ -e "$node/redis.conf" ] || (
    umask 077
    printf '%s\n' "port $port" 'bind 127.0.0.1' "dir $node" 'set-proc-title no' "$@" >"$node/redis.conf"
  )
  setsid "$redis_server" "$node/redis.conf" ${SENTINEL:+--sentinel} >>"$node/log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$node/pid"
  record "$dir" "$pid" "$node/redis.conf"
  wait_for 30 "$pid" redis_answers "$port" || give_up "$dir" "$node/log"
}

# redis_answers PORT: whether the node is there and has read its data.
redis_answers() { [ "$(redis-cli -h 127.0.0.1 -p "$1" ping)" = PONG ]; }

# redis_lines: the configuration of a node that keeps data. It refuses writes
# rather than forget keys, and a restart finds what was written. A test's server
# is not written through to the disk: that outlives the process, not the machine.
redis_lines() {
  printf '%s\n' 'appendonly yes' 'save ""' 'maxmemory-policy noeviction' 'repl-diskless-sync-delay 0'
  if [ -n "${OWNER_PID:-}" ]; then echo 'appendfsync no'; fi
  if [ -n "${REDIS_PASSWORD:-}" ]; then
    printf '%s\n' "requirepass $REDIS_PASSWORD" "masterauth $REDIS_PASSWORD"
  fi
}

# redis_pids DIR PORT...: their process ids, separated by commas.
redis_pids() {
  local dir=$1 port pids=
  shift
  for port in "$@"; do pids=$pids,$(cat "$dir/$port/pid"); done
  echo "${pids#,}"
}

# redis_nodes PORT...: their addresses, separated by commas.
redis_nodes() {
  local all
  all=$(printf ',127.0.0.1:%s' "$@")
  echo "${all#,}"
}
