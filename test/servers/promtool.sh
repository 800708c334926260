#!/bin/bash
# promtool.sh ARGUMENT...: Prometheus' promtool, such as `promtool.sh test rules
# FILE`. Without arguments it prints the program's path.
#
# It is that of this machine, else of Debian's package, which is only unpacked:
# installed, it would start a server on every interface.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need flock

unpacked=$SERVERS_HOME/prometheus
install_prometheus() { apt_unpack "$unpacked" prometheus && "$unpacked/usr/bin/promtool" --version; }

promtool=$(command -v promtool) || {
  installed prometheus debian install_prometheus
  promtool=$unpacked/usr/bin/promtool
}
if [ $# = 0 ]; then echo "$promtool"; else exec "$promtool" "$@"; fi
