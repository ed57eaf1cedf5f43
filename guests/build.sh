#!/bin/bash
# Builds the example functions into guests/out; guests/setup.sh installs what this needs.
# usage: guests/build.sh [NAME…]      NAME: a folder of examples, "kernels", "probes",
#                                     "vm", "linux", "workloads", "workers", "hostcalls", "egress",
#                                     "files", "runtimes" or "packages"; all unless told
#
# A function is built again only when its sources, the SDK or these scripts are newer than it.
# Every failure is named, and the exit status is 1 if there is one.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=guests/env.sh
. "$here/env.sh"
out=$here/out
logs=$here/.build
mkdir -p "$out/kernels" "$out/hostcalls" "$out/probes" "$out/vm" "$out/linux" "$out/workloads" "$out/workers" "$out/egress" "$out/files" "$out/runtimes" "$out/packages" "$logs"

# Two builds at once would write the same files; the second waits and finds them made.
exec 9>"$logs/.lock"
flock 9

clang=(clang-19 --target=wasm32-wasi "--sysroot=$SYSROOT" -O3 -msimd128 -s -w)
clangxx=(clang++-19 --target=wasm32-wasi "--sysroot=$SYSROOT" -O3 -msimd128 -s -w -fno-exceptions)

# SQLite itself: how it is built, and its source.
sqlite=(-DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_DEFAULT_MEMSTATUS=0
  -DSQLITE_TEMP_STORE=3 -DSQLITE_DQS=0 -DSQLITE_OMIT_WAL=1 -DSQLITE_ENABLE_MATH_FUNCTIONS
  -DSQLITE_ENABLE_FTS5 -I "$SOURCES/libsqlite3-sys/sqlite3"
  "$SOURCES/libsqlite3-sys/sqlite3/sqlite3.c")

say() { echo "guests/build: $*" >&2; }

# What each example is made with; $1 is its folder, $2 the file to write.
build_sqlite() { "${clang[@]}" "${sqlite[@]}" "$1/main.c" -o "$2"; }
build_wordcount() { "${clangxx[@]}" -std=c++20 "$1/main.cpp" -o "$2"; }
build_webp() {
  local webp=$SOURCES/libwebp-sys/vendor
  "${clang[@]}" -mexec-model=reactor -ffunction-sections -fdata-sections -Wl,--gc-sections \
    -I "$root/sdk/c" -I "$webp" -I "$webp/src" "$1/main.c" \
    "$webp"/src/enc/*.c "$webp"/src/dsp/*.c "$webp"/src/utils/*.c "$webp"/sharpyuv/*.c -o "$2"
}
# Fused multiply-add is a relaxed instruction, for its rounding differs between machines.
build_file_type() {
  "${clang[@]}" -mrelaxed-simd -mbulk-memory -mexec-model=reactor -I "$root/sdk/c" "$1/main.c" \
    -o "$2" -lm &&
    /usr/bin/python3 "$1/convert.py" "$MODEL" "$out/file-type.weights.new" &&
    mv "$out/file-type.weights.new" "$out/file-type.weights"
}
build_orders() {
  "${clang[@]}" -mbulk-memory -mexec-model=reactor -I "$root/sdk/c" "$1/main.c" -o "$2"
}
# Linked as a component straight from wasip1, because there wit-bindgen brings all that no_std lacks.
build_hello_http() {
  CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-component-ld rust wasm32-wasip1 "$1" hello_http.wasm "$2"
}
build_hello_http3() { rust wasm32-wasip2 "$1" hello_http3.wasm "$2"; }
# A library of Rust's gets no start-up code; a reactor wants the one that runs constructors once.
build_redact_rs() {
  local start=$SYSROOT/lib/wasm32-wasi/crt1-reactor.o
  flags="-Clink-arg=$start -Clink-arg=--export=_initialize" rust wasm32-wasip1 "$1" redact_rs.wasm "$2"
}
build_rollup() { rust wasm32-wasip1 "$1" rollup.wasm "$2"; }
build_stats_py() {
  # Built from a copy, for Python leaves its caches beside the sources.
  rm -rf "$logs/stats-py"
  mkdir -p "$logs/stats-py"
  cp "$1/app.py" "$logs/stats-py/"
  (cd "$logs/stats-py" && "$VENV/bin/componentize-py" -q -d "$SOURCES/wasip2/wit" \
    -w wasi:http/proxy@0.2.12 componentize app -o "$2")
}
build_list_js() {
  local node
  node=$(find_node) || { echo "no node; run guests/setup.sh"; return 1; }
  # The engine of componentize-js speaks WASI 0.2.10, of which the later 0.2.12 is an extension.
  rm -rf "$logs/wit-js"
  cp -r "$SOURCES/wasip2/wit" "$logs/wit-js"
  find "$logs/wit-js" -name '*.wit' -exec sed -i 's/0\.2\.1[12]/0.2.10/g' {} +
  "$node" "$1/build.mjs" "$NODE_MODULES" "$logs/wit-js" "$1/app.js" "$2"
}
build_distance_as() {
  local node
  node=$(find_node) || { echo "no node; run guests/setup.sh"; return 1; }
  # A random seed would be an import of the host's environment; nothing here draws random numbers.
  (cd "$root" && "$node" "$NODE_MODULES/assemblyscript/bin/asc.js" "${1#"$root/"}/index.ts" \
    -O3 --runtime incremental --use abort= -o "$2")
}
build_table_go() {
  (cd "$1" && GOOS=wasip1 GOARCH=wasm GOFLAGS=-mod=mod GOTOOLCHAIN=local GOWORK=off \
    /usr/lib/go-1.23/bin/go build -trimpath -ldflags='-s -w' -o "$2" .)
}

# A program for a micro-VM, by the system's own compiler.
freestanding=(gcc -O3 -march=x86-64-v2 -static -nostdlib -ffreestanding -fno-pie -no-pie
  -fno-stack-protector -I "$root/sdk/c")
# A Linux program for a micro-VM: static, as Lambda's own `provided` runtimes take it.
build_invoice_lambda() {
  flags=-Ctarget-feature=+crt-static rust x86_64-unknown-linux-gnu "$1" invoice-lambda "$2"
}
build_sha256_vm() { "${freestanding[@]}" "$1/main.c" -o "$2"; }
# Its flags are in its own .cargo/config.toml, where RUSTFLAGS would take their place.
build_sha256_rs_vm() {
  (cd "$1" && env -u RUSTUP_TOOLCHAIN -u RUSTFLAGS PATH="$TOOLS:/usr/bin:/bin" \
    CARGO_TARGET_DIR="$TOOLCHAINS/target/sha256-rs-vm" "$DEBIAN_CARGO" build -q --release --locked) &&
    cp "$TOOLCHAINS/target/sha256-rs-vm/x86_64-unknown-linux-gnu/release/sha256-rs-vm" "$2"
}

# vm NAME OUT: the bench's guest, and, where it computes, the same as a native program and as wasm.
vm() {
  local source=$root/benches/vm/$1.c
  "${freestanding[@]}" "$source" -o "$2.new" || return 1
  if grep -q 'ifdef NATIVE' "$source"; then
    gcc -O3 -march=x86-64-v2 -DNATIVE "$source" -o "${2%.elf}-native" || return 1
    "${clang[@]}" -mbulk-memory -mexec-model=reactor -I "$root/sdk/c" "$source" \
      -o "${2%.elf}.wasm" || return 1
  fi
  mv "$2.new" "$2"
}

# linux NAME FOLDER OUT: an example as a static Linux program, for a micro-VM, of the same source.
linux() {
  case $1 in
    sqlite) gcc -O2 -static -s -w "${sqlite[@]}" "$2/main.c" -o "$3" -lm ;;
    rollup)
      flags="-Ctarget-feature=+crt-static" rust x86_64-unknown-linux-gnu "$2" rollup "$3"
      ;;
    *) echo "nobody knows how to build $1"; return 1 ;;
  esac
}

# rust TARGET FOLDER PRODUCT OUT: Debian's cargo, a target folder outside the repository.
rust() {
  (cd "$2" && env -u RUSTUP_TOOLCHAIN RUSTFLAGS="${flags:-}" PATH="$TOOLS:/usr/bin:/bin" \
    CARGO_TARGET_WASM32_WASIP1_LINKER="${CARGO_TARGET_WASM32_WASIP1_LINKER:-wasm-ld-19}" \
    CARGO_TARGET_DIR="$TOOLCHAINS/target/$(basename "$2")" \
    "$DEBIAN_CARGO" build -q --release --locked --target "$1") &&
    cp "$TOOLCHAINS/target/$(basename "$2")/$1/release/$3" "$4"
}

# kernel NAME: the bench's kernel as a wasip1 command and as a native program.
kernel() {
  local source=$root/benches/kernels/$1.c
  "${clang[@]}" -mbulk-memory "$source" -o "$out/kernels/$1.wasm.new" -lm &&
    gcc -O3 -w "$source" -o "$out/kernels/$1.new" -lm &&
    mv "$out/kernels/$1.wasm.new" "$out/kernels/$1.wasm" &&
    mv "$out/kernels/$1.new" "$out/kernels/$1"
}

# probe NAME: a reactor that measures what the platform costs it.
probe() {
  "${clang[@]}" -mbulk-memory -mexec-model=reactor -I "$root/sdk/c" "$root/benches/probes/$1.c" -o "$2"
}

# workload NAME: functions over shared state, and native workers that do the same through Redis.
workload() {
  local folder=$root/benches/workloads product=$out/workloads/$1
  "${clang[@]}" -mbulk-memory -mexec-model=reactor -I "$root/sdk/c" "$folder/$1.c" \
    -o "$product.wasm.new" -lm &&
    gcc -O3 -w "$folder/$1-redis.c" -o "$product.new" -lm &&
    mv "$product.new" "$product" && mv "$product.wasm.new" "$product.wasm"
}

# worker NAME OUT: a native process that a function is measured against.
worker() {
  gcc -O3 -march=native -w -I "$root/examples/file-type" "$root/benches/workloads/$1-worker.c" \
    -o "$2" -lm
}

# hostcalls LANGUAGE FOLDER OUT: a guest that makes any host call, for the tests.
hostcalls() {
  local sdk=$root/sdk start=$SYSROOT/lib/wasm32-wasi/crt1-reactor.o node wit=$logs/wit-hostcalls-$1
  case $1 in
    c) "${clang[@]}" -mexec-model=reactor -I "$sdk/c" "$2/main.c" -o "$3" ;;
    cpp)
      "${clangxx[@]}" -std=c++17 -mexec-model=reactor -I "$sdk/c" -I "$sdk/cpp" "$2/main.cpp" -o "$3"
      ;;
    rust)
      flags="-Clink-arg=$start -Clink-arg=--export=_initialize" \
        rust wasm32-wasip1 "$2" hostcalls_rust.wasm "$3"
      ;;
    assemblyscript)
      node=$(find_node) || { echo "no node; run guests/setup.sh"; return 1; }
      (cd "$root" && "$node" "$NODE_MODULES/assemblyscript/bin/asc.js" "${2#"$root/"}/index.ts" \
        -O3 --runtime incremental --use abort= --enable threads -o "$3")
      ;;
    *)
      # The world of the guest, among the packages that it names.
      rm -rf "$wit" "$logs/hostcalls-$1"
      cp -r "$SOURCES/wasip2/wit" "$wit"
      rm "$wit/wasi-crate.wit"
      cp "$here/hostcalls/guest.wit" "$wit/"
      cp "$sdk/wit/dunlin-platform.wit" "$wit/deps/"
      cp -r "$2" "$logs/hostcalls-$1"
      "hostcalls_$1" "$logs/hostcalls-$1" "$wit" "$3"
      ;;
  esac
}
hostcalls_python() {
  (cd "$1" && "$VENV/bin/componentize-py" -q -d "$2" -w dunlin:hostcalls-guest/guest \
    componentize app -o "$3")
}
hostcalls_javascript() {
  local node
  node=$(find_node) || { echo "no node; run guests/setup.sh"; return 1; }
  find "$2" -name '*.wit' -exec sed -i 's/0\.2\.1[12]/0.2.10/g' {} +
  "$node" "$1/build.mjs" "$NODE_MODULES" "$2" "$1/app.js" "$3"
}

# runtime LANGUAGE FOLDER OUT: a component that functions are loaded into.
runtime() {
  local wit=$logs/wit-runtime-$1
  rm -rf "$wit" "$logs/runtime-$1"
  cp -r "$SOURCES/wasip2/wit" "$wit"
  rm "$wit/wasi-crate.wit"
  cp "$here/runtimes/runtime.wit" "$wit/"
  mkdir -p "$logs/runtime-$1"
  cp "$2/dunlin_runtime.py" "$logs/runtime-$1/"
  (cd "$logs/runtime-$1" && "$VENV/bin/componentize-py" -q -d "$wit" -w dunlin:runtime/http \
    componentize dunlin_runtime -o "$3")
}

# egress GUEST FOLDER OUT: a guest that connects to where it is told, for the tests.
egress() {
  case $1 in
    http3) rust wasm32-wasip2 "$2" egress_http3.wasm "$3" ;;
    sockets) rust wasm32-wasip2 "$2" egress-sockets.wasm "$3" ;;
    *) echo "nobody knows how to build $1"; return 1 ;;
  esac
}

# files GUEST OUT: a guest that uses files, for the tests; one source, for each way it can be built.
files() {
  case $1 in
    c) "${clang[@]}" "$here/files/c/main.c" -o "$2" ;;
    rust-p1) rust wasm32-wasip1 "$here/files/rust" files-rust.wasm "$2" ;;
    rust-p2) rust wasm32-wasip2 "$here/files/rust" files-rust.wasm "$2" ;;
    *) echo "nobody knows how to build $1"; return 1 ;;
  esac
}

# fresh OUT INPUT…: whether OUT is there and no input, nor a script of ours, is newer.
fresh() {
  local product=$1
  shift
  [ -e "$product" ] &&
    [ -z "$(find "$@" "$here/build.sh" "$here/env.sh" -type f -newer "$product" -print -quit)" ]
}

# build_one NAME, where NAME is an example, kernels/KERNEL, probes/PROBE, vm/GUEST, linux/NAME,
# workloads/NAME, workers/NAME, hostcalls/LANGUAGE, egress/GUEST or files/GUEST.
build_one() {
  local name=$1 product=$out/$1.wasm
  case $name in vm/* | linux/* | *-vm | *-lambda) product=$out/$1.elf ;; esac
  local folder=$root/examples/$1 log=$logs/${1//\//-}.log start=$SECONDS
  case $name in
    kernels/*)
      fresh "$product" "$root/benches/$name.c" && return 0
      kernel "${name#kernels/}" >"$log" 2>&1
      ;;
    probes/*)
      fresh "$product" "$root/benches/$name.c" "$root/sdk/c" && return 0
      probe "${name#probes/}" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    vm/*)
      fresh "$product" "$root/benches/$name.c" "$root/examples/sha256-vm" "$root/sdk/c" && return 0
      vm "${name#vm/}" "$product" >"$log" 2>&1
      ;;
    linux/*)
      folder=$root/examples/${name#*/}
      fresh "$product" "$folder" && return 0
      linux "${name#*/}" "$folder" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    workloads/*)
      fresh "$product" "$root/benches/workloads" "$root/sdk/c" && return 0
      workload "${name#workloads/}" >"$log" 2>&1
      ;;
    workers/*)
      product=$out/$name
      fresh "$product" "$root/benches/workloads" "$root/examples/file-type" && return 0
      worker "${name#workers/}" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    hostcalls/*)
      fresh "$product" "$here/hostcalls" "$root/sdk" && return 0
      rm -f "$product.new"
      hostcalls "${name#*/}" "$here/$name" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    runtimes/*)
      fresh "$product" "$here/runtimes" && return 0
      rm -f "$product.new"
      runtime "${name#*/}" "$here/$name" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    packages/*)
      product=$out/$name.zip folder=$root/examples/${name#*/}
      fresh "$product" "$folder" "$here/runtimes" && return 0
      "$VENV/bin/python" "$here/runtimes/python/pack.py" "$folder/requirements.txt" \
        "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    egress/*)
      fresh "$product" "$here/$name" && return 0
      rm -f "$product.new"
      egress "${name#*/}" "$here/$name" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    files/*)
      fresh "$product" "$here/files" && return 0
      rm -f "$product.new"
      files "${name#*/}" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
    *)
      fresh "$product" "$folder" "$root/sdk" && return 0
      rm -f "$product.new"
      "build_${name//-/_}" "$folder" "$product.new" >"$log" 2>&1 && mv "$product.new" "$product"
      ;;
  esac
  local status=$?
  if [ $status -ne 0 ]; then
    tail -30 "$log" >&2
    say "FAILED $name (whole log: ${log#"$root/"})"
    echo "$name" >>"$failures"
    return 1
  fi
  say "$name: $(stat -c %s "$product") bytes, $((SECONDS - start)) s"
}

# The names to build: what was asked for, or every example, slowest first, and then what benches need.
names=()
all=(sqlite stats-py list-js webp hello-http3 hello-http rollup redact-rs wordcount table-go distance-as file-type orders sha256-vm sha256-rs-vm invoice-lambda kernels probes vm linux workloads workers hostcalls egress files runtimes packages)
[ $# -gt 0 ] || set -- "${all[@]}"
for name in "$@"; do
  if [ "$name" = kernels ] || [ "$name" = probes ] || [ "$name" = vm ]; then
    for source in "$root/benches/$name"/*.c; do names+=("$name/$(basename "$source" .c)"); done
  elif [ "$name" = workloads ]; then
    for source in "$root/benches/workloads"/*-redis.c; do
      names+=("workloads/$(basename "$source" -redis.c)")
    done
  elif [ "$name" = workers ]; then
    for source in "$root/benches/workloads"/*-worker.c; do
      names+=("workers/$(basename "$source" -worker.c)")
    done
  elif [ "$name" = packages ]; then
    for source in "$root"/examples/*/requirements.txt; do
      names+=("packages/$(basename "$(dirname "$source")")")
    done
  elif [ "$name" = hostcalls ] || [ "$name" = egress ] || [ "$name" = runtimes ]; then
    for source in "$here/$name"/*/; do names+=("$name/$(basename "$source")"); done
  elif [ "$name" = linux ]; then
    names+=(linux/sqlite linux/rollup)
  elif [ "$name" = files ]; then
    names+=(files/c files/rust-p1 files/rust-p2)
  elif [ -d "$root/examples/$name" ] && declare -F "build_${name//-/_}" >/dev/null; then
    names+=("$name")
  else
    say "no example named $name; there are: ${all[*]}"
    exit 2
  fi
done

failures=$(mktemp)
trap 'rm -f "$failures"' EXIT
jobs_max=$(nproc)
for name in "${names[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs_max" ]; do wait -n || true; done
  build_one "$name" &
done
wait
if [ -s "$failures" ]; then
  say "failed: $(paste -sd ' ' "$failures")"
  exit 1
fi
say "${#names[@]} up to date in ${out#"$root/"}"
