#!/bin/sh
# Removes what setup_root.sh has installed. Nodes: deploy_workers.sh --uninstall.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: uninstall.sh [--prefix FOLDER] [--dry-run]

  --prefix FOLDER   where setup_root.sh has installed [default: ~/.local; /usr/local for root]
  --dry-run         print the commands and run none
  --help            this text

Models, keys, conversations and the cache folder stay: they are the user's.

Examples:
  ~/.local/share/dair/install/uninstall.sh
  uninstall.sh --prefix /opt/dair
USAGE
}

if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=${HOME:-}/.local; fi
# One that is installed removes itself.
if [ -f "$install/manifest" ]; then prefix=$(cd "$install/../../.." && pwd); fi
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --prefix)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $2 in '' | -* | *[[:cntrl:]]*) misuse "$1 is \"$2\"; a folder is expected" ;; esac
      prefix=$2
      shift
      ;;
    --dry-run) dry=yes ;;
    *) misuse "unknown argument $1" ;;
  esac
  shift
done
manifest=$prefix/share/dair/install/manifest
if [ ! -f "$manifest" ]; then
  say "nothing is installed in $prefix"
  exit
fi
make_work
cp "$manifest" "$work/manifest"
# A list that was tampered with removes nothing elsewhere.
while IFS= read -r file; do
  case /$file/ in */../* | //* | *[[:cntrl:]]*) fail "$manifest has the path $file, which is none of an installation's" ;; esac
done <"$work/manifest"
while IFS= read -r file; do change rm -f "$prefix/$file"; done <"$work/manifest"
change rm -f "$manifest"
[ -z "$dry" ] || exit 0
# Folders that have become empty, the innermost first.
while IFS= read -r file; do
  folder=${file%/*}
  while :; do
    say "$folder"
    case $folder in */*) folder=${folder%/*} ;; *) break ;; esac
  done
done <"$work/manifest" | sort -ru | while IFS= read -r folder; do
  rmdir "$prefix/$folder" 2>/dev/null || true
done
say "removed dair from $prefix"
