#!/bin/sh
# The first token of a cluster: a node on loopback only, which needs none, makes it, shows it on stdout and
# leaves. Where the cluster has a token, it makes none. Settings come from the environment, as for any node.
set -eu

data=$(mktemp -d)
export DUNLIN_DATA="$data" DUNLIN_LISTEN=127.0.0.1:8080 DUNLIN_ADMIN=127.0.0.1:8081
export DUNLIN_PEER_ADDR=127.0.0.1:8082 DUNLIN_REQUIRE_TOKEN=false
unset DUNLIN_ADVERTISE
dunlin up >"$data.log" 2>&1 &
node=$!
trap 'kill "$node" 2>/dev/null; wait "$node" || true; rm -rf "$data" "$data.log"' EXIT

curl -sS --fail --retry 60 --retry-delay 1 --retry-connrefused -o "$data.ready" \
  http://127.0.0.1:8081/readyz || {
  cat "$data.log" >&2
  exit 1
}
rm -f "$data.ready"
case $(dunlin token list --output json) in
*'"id"'*) echo "the cluster has a token; no other one is made" >&2 ;;
*) dunlin token create first ;;
esac
