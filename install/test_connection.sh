#!/bin/sh
# Whether the workers of a nodes file answer.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: test_connection.sh [--tcp] [--key FILE] [--dry-run] NODES_FILE [PORT]

  NODES_FILE   one [USER@]HOST[:PORT] a line, as nodes.example shows
  PORT         port of workers whose line does not name it [default: WORKER_PORT, else 9990]
  --tcp        only see whether a connection is taken, within 3 seconds; else `dair nodes` asks where it is there, which
               takes the cluster's key
  --key FILE   for dair nodes [default: as dair finds it]
  --dry-run    print the commands and run none
  --help       this text

The exit code is 1 if any worker does not answer.

Examples:
  test_connection.sh nodes.txt
  test_connection.sh --tcp nodes.txt 9991
USAGE
}

tcp=
key=
nodes_file=
port=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --tcp) tcp=yes ;;
    --dry-run) dry=yes ;;
    --key)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      check_file --key "$2"
      key=$2
      shift
      ;;
    -*) misuse "unknown argument $1" ;;
    *)
      if [ -z "$nodes_file" ]; then
        nodes_file=$1
      elif [ -z "$port" ]; then
        is_port "$1" || misuse "PORT is \"$1\"; allowed: 1 to 65535"
        port=$1
      else
        misuse "$1 is one argument too many; a NODES_FILE and a PORT are expected"
      fi
      ;;
  esac
  shift
done
[ -n "$nodes_file" ] || misuse "a NODES_FILE is expected"
port=${port:-${WORKER_PORT:-$default_port}}
is_port "$port" || misuse "WORKER_PORT is \"$port\"; allowed: 1 to 65535"
make_work
read_nodes "$nodes_file" "$port"

# dair where the scripts are installed, else in PATH.
dair=
if [ -z "$tcp" ]; then
  for dair in "$install/../../../bin/dair" dair; do
    if has "$dair"; then break; fi
    dair=
  done
fi

# A connection within 3 s, by what is here.
reaches() { # HOST PORT
  if has nc; then
    nc -z -w 3 "$1" "$2"
  elif has python3; then
    python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)' "$1" "$2"
  elif has bash && has timeout; then
    # shellcheck disable=SC2016 # bash's
    timeout 3 bash -c ': <"/dev/tcp/$0/$1"' "$1" "$2"
  else
    fail "no program to connect with: install dair, nc, python3 or bash"
  fi 2>/dev/null
}

probe() {
  if [ -n "$dry" ]; then
    print_command nc -z -w 3 "$host" "$port"
  elif reaches "$host" "$port"; then
    say reached >"$work/$number.state"
  fi
}

# Workers of C++ Distributed-Llama do not answer dair.
ours=
k=1
while [ "$k" -le "$n_nodes" ]; do
  node_fields "$k"
  if [ "$kind" = dair ]; then ours="$ours $(joined "$host $port")"; fi
  k=$((k + 1))
done
if [ -n "$dair" ] && [ "$(say "$ours" | wc -w)" -eq "$n_nodes" ]; then
  # shellcheck disable=SC2086 # one word a worker
  set -- "$dair" nodes --timeout-s 3 ${key:+--key "$key"} --workers $ours
  change "$@" || fail "not all of $n_nodes workers answer"
  [ -n "$dry" ] || say "all $n_nodes workers answer"
  exit
fi
for_each_node probe 32
[ -z "$dry" ] || exit 0
n_reached=0
k=1
printf 'WORKER\tPORT\n' >"$work/table"
while [ "$k" -le "$n_nodes" ]; do
  node_fields "$k"
  state=$(cat "$work/$k.state" 2>/dev/null || say "does not answer")
  [ "$state" != reached ] || n_reached=$((n_reached + 1))
  printf '%s\t%s\n' "$(joined "$host $port")" "$state" >>"$work/table"
  k=$((k + 1))
done
print_table <"$work/table"
[ "$n_reached" = "$n_nodes" ] || fail "$((n_nodes - n_reached)) of $n_nodes workers can't be reached"
say "all $n_nodes workers can be reached"
