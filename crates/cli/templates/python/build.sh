#!/bin/sh
# Turns app.py into a wasi:http component, with tools in a virtual environment of its own.
set -eu
if [ -z "${COMPONENTIZE_PY:-}" ]; then
  [ -d .venv ] || python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
  COMPONENTIZE_PY=.venv/bin/componentize-py
fi
"$COMPONENTIZE_PY" -q -d wit -w http componentize app -o {{name}}.wasm
