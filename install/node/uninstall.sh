#!/bin/sh
# Ends the worker of the folder in which this script lies and removes what its install.sh and deploy_workers.sh have made.
set -eu
LC_ALL=C
export LC_ALL

usage() {
  cat <<'USAGE'
Usage: uninstall.sh [--dir FOLDER] [--keep-models]

  --dir FOLDER     as for install.sh [default: the folder above this script's]
  --keep-models    leave models where they are
  --help           this text

Models that were put there by hand stay in any case.

Examples:
  ./uninstall.sh
  /opt/dair/worker/uninstall.sh --keep-models
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
keep=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --keep-models) keep=yes ;;
    --dir)
      [ $# -ge 2 ] || misuse "--dir needs a value"
      dir=$2
      shift
      ;;
    *) misuse "unknown argument $1" ;;
  esac
  shift
done
[ -d "$dir" ] || misuse "--dir: there is no folder $dir"
dir=$(cd "$dir" && pwd)
[ -x "$here/host-worker" ] || fail "$here has no host-worker, so it is no worker's folder"

mark='# by install.sh of a worker bundle'
if grep -qsxF "$mark" /etc/dair/worker.env; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    sudo='sudo -n'
    sudo -n true 2>/dev/null || fail "the worker is a service of the system; run this as root, or with sudo"
  fi
  if [ -d /run/systemd/system ]; then $sudo systemctl disable --quiet --now dair-worker.service; fi
  if [ -f /etc/init.d/dair-worker ]; then
    $sudo rc-service -q dair-worker stop || true
    $sudo rc-update -q del dair-worker default || true
  fi
  $sudo rm -rf /etc/systemd/system/dair-worker.service /etc/systemd/system/dair-worker.service.d /etc/init.d/dair-worker \
    /etc/dair/worker.env /etc/dair/key
  $sudo rmdir /etc/dair 2>/dev/null || true
  if [ -d /run/systemd/system ]; then $sudo systemctl daemon-reload; fi
fi

pid=$(cat "$dir/worker.pid" 2>/dev/null || true)
if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "/host-worker "; then
  # It ends what it computes before.
  kill "$pid" 2>/dev/null || true
  patience=30
  while kill -0 "$pid" 2>/dev/null && [ "$patience" -gt 0 ]; do
    patience=$((patience - 1))
    sleep 1
  done
  if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
fi

if [ -z "$keep" ]; then
  for record in "$dir"/models/*.m.sha256; do
    if grep -qsx deployed "$record"; then rm -f "${record%.sha256}"; fi
    rm -f "$record"
  done
  rm -f "$dir"/models/*.m.????????????????.part
  rmdir "$dir/models" 2>/dev/null || true
fi
rm -rf "$dir/cache" "$dir/worker.new" "$here"
rm -f "$dir/worker.pid" "$dir/worker.log" "$dir/worker.state" "$dir/bundle" "$dir/bundle.part" "$dir/key" "$dir/key.part"
# The folder is not this script's own where others have put files.
if rmdir "$dir" 2>/dev/null; then
  echo "removed $dir"
else
  echo "removed the worker; $(find "$dir" -type f | wc -l | tr -d ' ') files stay in $dir"
fi
