#!/bin/sh
# Compiles main.c to a WebAssembly reactor.
set -eu
"${WASI_CC:-clang}" --target=wasm32-wasi --sysroot="${WASI_SYSROOT:-/usr}" \
  -O3 -msimd128 -Wall -Wextra -mexec-model=reactor -s main.c -o {{name}}.wasm
