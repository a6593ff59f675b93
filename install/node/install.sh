#!/bin/sh
# Installs and starts the worker of the folder in which this script lies: as a service of systemd or OpenRC where that
# may be done, else as a process of this user. Run again, it changes only what differs, and restarts the worker only then.
set -eu
LC_ALL=C
export LC_ALL
umask 022

usage() {
  cat <<'USAGE'
Usage: install.sh [OPTIONS] [-- ARGUMENTS OF host-worker…]

  --dir FOLDER       where models/*.m and the file `key` are, and the process keeps its log [default: the folder above
                     this script's]
  --port PORT        port of the worker [default: 9990]
  --insecure         run without a key: whoever reaches the port may use this machine
  --service KIND     auto, system or user [default: auto: a service of the system where it is systemd or OpenRC, root's
                     rights can be had without a password and FOLDER is in nobody's home; else a process of this user,
                     which a reboot ends]
  --help             this text

Examples:
  ./install.sh
  ./install.sh --dir /srv/dair --port 9991 -- --threads 4 --memory 2GiB

A worker without a model takes its weights from the root: ./install.sh --insecure -- --dialect dllama
USAGE
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
misuse() {
  printf 'error: %s (%s --help tells more)\n' "$*" "${0##*/}" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
dir=${here%/*}
port=9990
insecure=
service=auto
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --insecure) insecure=yes ;;
    --dir | --port | --service)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in --dir) dir=$2 ;; --port) port=$2 ;; --service) service=$2 ;; esac
      shift
      ;;
    --)
      shift
      break
      ;;
    *) misuse "unknown argument $1" ;;
  esac
  shift
done
case $port in '' | *[!0-9]* | ??????*) misuse "--port is \"$port\"; allowed: 1 to 65535" ;; esac
[ "$port" -ge 1 ] && [ "$port" -le 65535 ] || misuse "--port is $port; allowed: 1 to 65535"
case $service in auto | system | user) ;; *) misuse "--service is $service; allowed: auto, system, user" ;; esac
[ -d "$dir" ] || misuse "--dir: there is no folder $dir"
dir=$(cd "$dir" && pwd)
case $dir$here$* in *[!A-Za-z0-9._/+@:=,%~\ -]*) misuse "paths and arguments may have letters, digits and ._/+@:=,%~- in them" ;; esac
case $dir$here in *' '*) misuse "the path $dir has a blank in it" ;; esac

worker=$here/host-worker
[ -x "$worker" ] || fail "$worker is not there; unpack the bundle again"
"$worker" --version >/dev/null 2>&1 || fail "$worker does not run here ($(uname -sm)); is the bundle for another processor?"

# With arguments that say where weights are, nothing is said about them here.
models=
for model in "$dir"/models/*.m; do
  if [ -f "$model" ]; then models="--model-dir $dir/models"; fi
done
case " $* " in
  *' --model '* | *' -m '* | *' --model-dir '* | *' --dialect '*) ;;
  *) [ -n "$models" ] || fail "no model in $dir/models, so this worker would have nothing to compute; put one there" ;;
esac
has_key=
if [ -f "$dir/key" ]; then has_key=yes; fi
[ -n "$has_key$insecure" ] || fail "no key in $dir/key, so this worker would be reached from nowhere; put one there, or say --insecure"

sudo=
may_be_root=
if [ "$(id -u)" = 0 ]; then
  may_be_root=yes
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  may_be_root=yes
  sudo='sudo -n'
fi
manager=none
if [ -d /run/systemd/system ] && [ -f "$here/services/dair-worker.service" ]; then
  manager=systemd
elif [ -d /run/openrc ] && [ -f "$here/services/dair-worker.initd" ]; then
  manager=openrc
fi
is_home=
case $dir/ in /home/* | /root/* | "${HOME:-/root}"/*) is_home=yes ;; esac
kind=user
case $service:$may_be_root:$manager:$is_home in
  system::*) fail "--service system needs root, or sudo without a password" ;;
  system:*:none:*) fail "--service system: neither systemd nor OpenRC runs here" ;;
  system:*:systemd:yes) fail "--service system: the service sees no home, and $dir is in one; use another folder, such as /opt/dair" ;;
  system:* | auto:yes:systemd: | auto:yes:openrc:) kind=$manager ;;
esac

# What makes a difference to a worker that runs: its program, its arguments, its key, its models.
arguments="--port $port${models:+ $models}${insecure:+ --insecure}${*:+ $*}"
wanted=$(
  echo "$kind $here $arguments"
  cat "$here/SHA256SUMS" 2>/dev/null || true
  if [ -n "$has_key" ]; then cksum <"$dir/key"; fi
  for model in "$dir"/models/*.m; do
    if [ -f "$model" ]; then stat -c '%n %s %Y' "$model" 2>/dev/null || ls -l "$model"; fi
  done
)

running_pid() {
  pid=$(cat "$dir/worker.pid" 2>/dev/null) || return 1
  # The number may have become another process's.
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "/host-worker " && kill -0 "$pid" 2>/dev/null
}

stop_user() {
  if running_pid; then
    # It ends what it computes before.
    kill "$pid"
    patience=30
    while kill -0 "$pid" 2>/dev/null && [ "$patience" -gt 0 ]; do
      patience=$((patience - 1))
      sleep 1
    done
    if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$dir/worker.pid"
}

start_user() {
  rm -f "$dir/worker.log"
  # shellcheck disable=SC2086 # arguments are words
  set -- "$worker" $arguments
  if [ -n "$has_key" ]; then set -- "$@" --key "$dir/key"; fi
  # What it measures of this machine stays in the folder, too, and goes with it.
  DAIR_CACHE=$dir/cache nohup "$@" </dev/null >"$dir/worker.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/worker.pid"
  # A machine is measured at the first start.
  patience=120
  until grep -q '^listening on ' "$dir/worker.log"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      rm -f "$dir/worker.pid"
      fail "the worker ended: $(tail -n 1 "$dir/worker.log")"
    fi
    [ "$patience" -gt 0 ] || fail "the worker does not listen after two minutes; see $dir/worker.log"
    patience=$((patience - 1))
    sleep 1
  done
}

mark='# by install.sh of a worker bundle'

write() { # FILE MODE: its input becomes a file of root's
  # shellcheck disable=SC2016 # of that shell
  $sudo sh -c 'umask 077; cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"' sh "$1" "$2"
}

start_system() {
  $sudo mkdir -p /etc/dair
  if [ -f /etc/dair/worker.env ] && ! grep -qxF "$mark" /etc/dair/worker.env; then
    fail "/etc/dair/worker.env is another installation's; remove that first, or say --service user"
  fi
  printf '%s\nDAIR_WORKER_ARGS="%s"\n' "$mark" "$arguments" | write /etc/dair/worker.env 644
  if [ -n "$has_key" ]; then write /etc/dair/key 600 <"$dir/key"; else $sudo rm -f /etc/dair/key; fi
  if [ "$kind" = systemd ]; then
    $sudo mkdir -p /etc/systemd/system/dair-worker.service.d
    write /etc/systemd/system/dair-worker.service 644 <"$here/services/dair-worker.service"
    # The unit names the place of the packages' program.
    # shellcheck disable=SC2016 # systemd's
    printf '%s\n[Service]\nExecStart=\nExecStart=%s $DAIR_WORKER_ARGS\n' "$mark" "$worker" |
      write /etc/systemd/system/dair-worker.service.d/place.conf 644
    $sudo systemctl daemon-reload
    $sudo systemctl enable --quiet dair-worker.service
    $sudo systemctl restart dair-worker.service ||
      fail "systemd could not start it: $($sudo journalctl -u dair-worker.service -n 1 -o cat 2>/dev/null)"
  else
    # The service's user, who may read models and nothing else.
    id -u dair >/dev/null 2>&1 || { $sudo addgroup -S dair && $sudo adduser -S -D -H -G dair dair; } >/dev/null 2>&1 ||
      fail "the service's user dair could not be made"
    sed "s|^command=.*|command=$worker|" "$here/services/dair-worker.initd" | write /etc/init.d/dair-worker 755
    $sudo rc-update -q add dair-worker default
    $sudo rc-service -q dair-worker restart || fail "OpenRC could not start it; see its log"
  fi
}

is_running() {
  case $kind in
    systemd) systemctl is-active --quiet dair-worker.service ;;
    openrc) rc-service -q dair-worker status >/dev/null 2>&1 ;;
    user) running_pid ;;
  esac
}

before=$(cat "$dir/worker.state" 2>/dev/null || true)
if [ "$before" = "$wanted" ] && is_running; then
  echo "running ($kind)"
  exit
fi
word=started
[ -z "$before" ] || word=restarted
# Also where it becomes a service of the system, which takes the same port.
stop_user
rm -f "$dir/worker.state"
if [ "$kind" = user ]; then start_user; else start_system; fi
printf '%s\n' "$wanted" >"$dir/worker.state"
echo "$word ($kind)"
