#!/bin/sh
# Measures this machine, or all nodes of a file at the same time, with `dair bench`.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: run_benchmark.sh [OPTIONS] [-- ARGUMENTS OF dair bench…]

  --nodes FILE     measure the nodes of this file instead of this machine: dair goes there by ssh, into a folder that is
                   removed afterwards
  --dair FILE      the program; given several times, each node gets the one for its processor. Best a static one, of
                   which all nodes can run [default: the one that is installed here]
  --out FOLDER     keep the figures of each node there, as NODE.json
  --parallel N     so many nodes at a time [default: 8]
  --dry-run        print the commands and run none
  --help           this text

Environment: SSH_OPTS and SCP_OPTS as for deploy_workers.sh

Memory is the median of what all threads read; prefill and decode are of a whole model with random weights. A worker that
is at work on the node makes it slower.

Examples:
  run_benchmark.sh
  run_benchmark.sh -- --shape llama3.2-1b --seconds 60
  run_benchmark.sh --nodes nodes.txt --dair dair-x86_64 --dair dair-aarch64 -- --seconds 10
USAGE
}

nodes_file=
programs=
out=
parallel=8
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --nodes | --dair | --out | --parallel)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in
        --nodes) nodes_file=$2 ;;
        --dair)
          check_file --dair "$2"
          case $2 in */*) programs="$programs$2$newline" ;; *) programs="$programs./$2$newline" ;; esac
          ;;
        --out) out=$2 ;;
        --parallel) parallel=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry=yes ;;
    --)
      shift
      break
      ;;
    *) misuse "unknown argument $1; those of dair bench come after --" ;;
  esac
  shift
done
is_number "$parallel" 1 255 || misuse "--parallel is \"$parallel\"; allowed: 1 to 255"
are_words "$*" || misuse "arguments of dair bench may have letters, digits and ._/+@:=,%~- in them"
case $out in -* | *[[:cntrl:]]*) misuse "--out is \"$out\"; a folder is expected" ;; esac
bench_args=$*

if [ -z "$programs" ]; then
  for program in "$install/../../../bin/dair" "$(command -v dair || true)"; do
    if [ -x "$program" ] && [ -z "$programs" ]; then programs=$program$newline; fi
  done
  [ -n "$programs" ] || fail "no dair here: setup_root.sh installs it, or --dair FILE names it"
fi
if [ -z "$nodes_file" ]; then
  [ -z "$out" ] || misuse "--out goes with --nodes"
  change "${programs%%"$newline"*}" bench "$@"
  exit
fi
read_ssh_options
make_work
read_nodes "$nodes_file" "$default_port"
if [ -n "$out" ] && [ -z "$dry" ]; then mkdir -p "$out" || fail "the folder $out can't be made"; fi
printf '%s' "$programs" >"$work/programs"

# A JSON figure that stands behind this text; whole answers are one line.
figure() { # TEXT-BEFORE
  sed -n "s/.*$1\\([0-9.]*\\).*/\\1/p" "$work/$number.json" | awk '{ printf("%.1f\n", $1) }'
}

measure() {
  errors_to=$work/$number.said
  if [ -n "$dry" ]; then
    say "$name"
    program=${programs%%"$newline"*}
  else
    machine=$(on_node "$ssh_options" uname -m 2>"$errors_to" </dev/null) || { last_words; return 1; }
    program=
    while IFS= read -r each; do
      case $(triple_of "$machine"):$(processor_of "$each") in
        x86_64-*:x86_64 | aarch64-*:aarch64 | armv7-*:armv7) program=$each ;;
      esac
    done <"$work/programs"
    if [ -z "$program" ]; then
      say "no dair for $(shown "$machine"): name one with --dair" >"$work/$number.error"
      return 1
    fi
  fi
  input=" <$program"
  # shellcheck disable=SC2016 # the node's
  on_node "$copy_options" 'folder=$(mktemp -d) && trap "rm -rf $folder" EXIT && trap "exit 1" HUP INT TERM && cat >$folder/dair &&
    chmod 700 $folder/dair && $folder/dair bench --dir $folder --json '"$bench_args" <"$program" >"$work/$number.out" 2>"$errors_to" || {
    last_words
    return 1
  }
  if [ -n "$dry" ]; then cat "$work/$number.out"; else mv "$work/$number.out" "$work/$number.json"; fi
}
last_words() { shown "$(tail -n 1 "$errors_to" | sed 's/^error: //')" >"$work/$number.error"; }

for_each_node measure "$parallel"
[ -z "$dry" ] || exit 0
n_failed=0
k=1
printf 'NODE\tISA\tMEMORY GB/s\tPREFILL tokens/s\tDECODE tokens/s\tERROR\n' >"$work/table"
while [ "$k" -le "$n_nodes" ]; do
  node_fields "$k"
  if [ -e "$work/$k.json" ]; then
    isa=$(sed -n 's/.*"isa":"\([a-z0-9_]*\)"},"prefill".*/\1/p' "$work/$k.json")
    memory=$(sed 's/"kernels".*//' "$work/$k.json" >"$work/$k.memory" && sed -n 's/.*"median_gb_per_second":\([0-9.]*\).*/\1/p' "$work/$k.memory" | awk '{ printf("%.1f\n", $1) }')
    prefill=$(figure '"model":.*"prefill":{"tokens":[0-9]*,"tokens_per_second":')
    decode=$(figure '"model":.*"decode":{"tokens":[0-9]*,"tokens_per_second":')
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$isa" "$memory" "${prefill:--}" "${decode:--}" >>"$work/table"
    if [ -n "$out" ]; then mv "$work/$k.json" "$out/$(printf '%s' "$name" | tr -c 'A-Za-z0-9._@-' _).json"; fi
  else
    n_failed=$((n_failed + 1))
    printf '%s\t-\t-\t-\t-\t%s\n' "$name" "$(cat "$work/$k.error" 2>/dev/null)" >>"$work/table"
  fi
  k=$((k + 1))
done
print_table <"$work/table"
[ "$n_failed" = 0 ] || fail "$n_failed of $n_nodes nodes were not measured"
