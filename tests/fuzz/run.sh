#!/usr/bin/env bash
# Runs fuzz targets: tests/fuzz/run.sh [--install] SECONDS [TARGET...], each for so many seconds, all of them unless some are
# named. Ends at the first finding, which is kept in tests/fuzz/artifacts. Wants cargo-fuzz, which --install installs, and a C++
# compiler. Less than a minute is not worth a long build: then targets are optimised less. FUZZ_FLAGS in the environment are flags of
# libFuzzer, such as -jobs=2.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
  sed -n '2,6s/^# //p' tests/fuzz/run.sh >&2
  exit 2
}

install=
[ "${1-}" != --install ] || { install=yes && shift; }
[[ ${1-} =~ ^[0-9]+$ ]] || usage
seconds=$1
shift

missing() {
  echo "error: $1 is missing; $2" >&2
  exit 77
}

command -v cargo >/dev/null || missing cargo 'install Rust'
command -v c++ >/dev/null || missing 'a C++ compiler' 'libFuzzer is built with it: install g++ or clang'
if ! cargo fuzz --version >/dev/null 2>&1; then
  [ -n "$install" ] || missing cargo-fuzz 'cargo install --locked cargo-fuzz, or run this with --install'
  cargo install --locked cargo-fuzz || missing cargo-fuzz 'it could not be installed'
fi

mapfile -t known < <(sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' tests/fuzz/Cargo.toml)
[ $# -gt 0 ] || set -- "${known[@]}"
for target; do
  [ -f "tests/fuzz/targets/$target.rs" ] || missing "target $target" "there are: ${known[*]}"
done

# No sanitizer: there is little unsafe code to find anything in, the memory limits of the targets need none, and so any toolchain
# will do.
built=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
profile=(release)
[ "$seconds" -ge 60 ] || profile=(debug --dev)
CARGO_TARGET_DIR=$built cargo fuzz build --fuzz-dir tests/fuzz -s none "${profile[@]:1}"
cargo run --quiet -p dair-tests --bin fuzz-seeds -- tests/fuzz/corpus

host=$(rustc -vV | sed -n 's/^host: //p')
place=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" dair-fuzz.XXXXXX)
trap 'rm -rf "$place"' EXIT
for target; do
  artifacts=tests/fuzz/artifacts/$target
  mkdir -p "$artifacts"
  flags=("-max_total_time=$seconds" -timeout=1 -rss_limit_mb=256 -max_len=65536 -len_control=20 -print_final_stats=1
    -verbosity=0 "-artifact_prefix=$artifacts/")
  dictionary=tests/fuzz/dict/$target.dict
  [ ! -f "$dictionary" ] || flags+=("-dict=$dictionary")
  log=$place/log
  # shellcheck disable=SC2086 # flags are words
  if ! TMPDIR=$place "$built/$host/${profile[0]}/$target" "${flags[@]}" ${FUZZ_FLAGS-} "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    cat "$log"
    echo "error: $target found what is kept in $artifacts; see tests/fuzz/README.md" >&2
    exit 1
  fi
  printf '%-22s %12s executions, %6s/s, %4s MB at most\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" "$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")"
done
