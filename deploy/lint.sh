#!/usr/bin/env bash
# Checks what is in this folder, with tools from the Python registry that it puts into a folder of their own beside
# the guests' toolchains. It needs python3 with venv, and no root. `docker` and a cluster are not asked.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=../guests/env.sh
. ../guests/env.sh
tools=$TOOLCHAINS/deploy-lint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "deploy: $*" >&2; }

if ! cmp -s requirements.txt "$tools/requirements.txt"; then
  say "pip: $(grep -v '^#' requirements.txt | head -5 | tr '\n' ' ')and what they need, into $tools"
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps -r requirements.txt
  cp requirements.txt "$tools/requirements.txt"
fi
PATH=$tools/bin:$PATH
# Whoever runs this has a home with settings of other clusters; none of them counts here.
export HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm

say "yaml"
yamllint --strict --config-file yamllint.yaml .

say "compose"
check-jsonschema --builtin-schema vendor.compose-spec compose/compose.yaml
# What listens beyond loopback on the machine itself: nothing.
if grep -E '^ *ports:' compose/compose.yaml | grep -Eo '"[^"]+"' | grep -v '^"127\.0\.0\.1:'; then
  say "compose.yaml publishes a port beyond loopback"
  exit 1
fi

say "container"
hadolint --failure-threshold info Containerfile
sh -n first-token.sh

say "chart"
check-jsonschema --check-metaschema helm/dunlin/values.schema.json
for values in one three; do
  helm lint --quiet --strict --values "helm/dunlin/ci/$values.yaml" helm/dunlin
  helm template demo helm/dunlin --namespace demo --values "helm/dunlin/ci/$values.yaml" \
    >"$work/$values.yaml"
  # The oldest and the newest release that the chart is for.
  for release in 1.27 1.37; do
    kubernetes-validate --strict --quiet --kubernetes-version "$release" "$work/$values.yaml"
  done
done
# Values that are wrong are refused, or the schema checks nothing.
if helm template demo helm/dunlin --values helm/dunlin/ci/one.yaml --set nodes=0 >"$work/out" 2>&1 ||
  helm template demo helm/dunlin --values helm/dunlin/ci/one.yaml --set node=1 >"$work/out" 2>&1; then
  say "the chart takes values that its schema forbids"
  exit 1
fi

say "unit"
if command -v systemd-analyze >/dev/null; then
  # The program is not installed here; everything else of the unit is as it will be.
  sed 's|^ExecStart=.*|ExecStart=/bin/true|' systemd/dunlin.service >"$work/dunlin.service"
  if ! systemd-analyze verify "$work/dunlin.service" >"$work/out" 2>&1 || [ -s "$work/out" ]; then
    cat "$work/out" >&2
    exit 1
  fi
else
  say "systemd-analyze is not here: the unit is not checked"
fi

say "dashboard"
python3 dashboard.py grafana/dunlin.json ../crates
say "fine"
