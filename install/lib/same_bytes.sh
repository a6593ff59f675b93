#!/bin/sh
# Cargo's configuration with which a commit becomes the same bytes in any folder, with any CARGO_HOME: install/lib/same_bytes.sh TRIPLE
#
#   cargo --config targets/TRIPLE.toml --config "$(install/lib/same_bytes.sh TRIPLE)" build --profile dist --locked …
#
# What panics says in which file, generated ones and those of libraries included, and such paths are those of whoever builds: here
# they get names of their own. The compiler and its version have to be the same, too.
set -eu
[ $# = 1 ] || { echo 'usage: same_bytes.sh TRIPLE' >&2; exit 2; }
repo=$(cd "$(dirname "$0")/../.." && pwd -P)
cargo=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-$repo/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
case $repo$cargo$target in *[\"\\]*) echo "error: a quote or a backslash in $repo, $cargo or $target" >&2; exit 1 ;; esac
# Of several that fit, the compiler takes the last one.
printf 'target.%s.rustflags=["--remap-path-prefix=%s=/dair","--remap-path-prefix=%s=/cargo","--remap-path-prefix=%s=/target"]\n' \
  "$1" "$repo" "$cargo" "$target"
