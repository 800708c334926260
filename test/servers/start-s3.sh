#!/bin/bash
# start-s3.sh DIR [PORT]: S3, by VersityGW (Apache-2.0): what is stored are files
# in DIR/objects, so the file system has to know extended attributes.
#
# Prints its URL. DIR/env: S3_URL, S3_REGION, S3_ACCESS_KEY, S3_SECRET_KEY of the
# account that may do everything, S3_BUCKET (which is there), S3_PID. See lib.sh
# for what the scripts have in common. The first run compiles it, in a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
need python3 curl flock ps

version=v1.8.0
program=$SERVERS_HOME/s3/versitygw
region=us-east-1 access=bulkhead secret=bulkhead-on-loopback bucket=bulkhead

# Outside of the project, so that nothing of it gets into its go.mod.
install_s3() {
  need go && mkdir -p "$SERVERS_HOME/s3" && cd "$SERVERS_HOME/s3" &&
    GOFLAGS='' GOWORK=off GOBIN="$SERVERS_HOME/s3" CGO_ENABLED=0 \
      go install -ldflags=-s "github.com/versity/versitygw/cmd/versitygw@$version"
}
installed s3 "$version" install_s3

mkdir -p "$1/objects"
dir=$(cd "$1" && pwd)
port=$(choose_port "$dir" "${2:-}")
cd "$dir"
ROOT_ACCESS_KEY=$access ROOT_SECRET_KEY=$secret setsid "$program" --port "127.0.0.1:$port" --region "$region" \
  --quiet --keep-alive --health /healthz posix "$dir/objects" >"$dir/log" 2>&1 </dev/null &
pid=$!
record "$dir" "$pid" "posix $dir/objects"
stop_with_owner "$dir"
wait_for 30 "$pid" curl -sf "http://127.0.0.1:$port/healthz" || give_up "$dir"
[ -e "objects/$bucket" ] ||
  curl -sf -X PUT -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" --user "$access:$secret" --aws-sigv4 "aws:amz:$region:s3" "http://127.0.0.1:$port/$bucket" || give_up "$dir"
publish "$dir" "S3_URL=http://127.0.0.1:$port" "S3_REGION=$region" "S3_ACCESS_KEY=$access" "S3_SECRET_KEY=$secret" \
  "S3_BUCKET=$bucket" "S3_PID=$pid"
