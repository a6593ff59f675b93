#!/bin/sh
# Builds dair and installs it on this machine, from which a cluster is used: programs, completions, manual pages, and the
# scripts that deploy workers.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: setup_root.sh [--prefix FOLDER] [--binaries FOLDER] [--dry-run]

  --prefix FOLDER     where to install [default: ~/.local; /usr/local for root]
  --binaries FOLDER   take dair and host-worker from there instead of building them
  --dry-run           print the commands and run none
  --help              this text

Installs bin/dair, bin/host-worker, share/dair/install (the scripts), manual pages below share/man and completions for bash, zsh
and fish below share. What was installed is listed in share/dair/install/manifest; uninstall.sh removes that and nothing else.
dair has no Python in it: PYTHON, VENV_PATH, SKIP_PYTHON and EDITABLE of the environment have no meaning here.

Examples:
  setup_root.sh
  sudo setup_root.sh --prefix /usr/local --binaries target/release
USAGE
}

if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=${HOME:-}/.local; fi
binaries=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --prefix | --binaries)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $2 in '' | -* | *[[:cntrl:]]*) misuse "$1 is \"$2\"; a folder is expected" ;; esac
      case $1 in --prefix) prefix=$2 ;; --binaries) binaries=$2 ;; esac
      shift
      ;;
    --dry-run) dry=yes ;;
    *) misuse "unknown argument $1" ;;
  esac
  shift
done
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
for old in PYTHON VENV_PATH SKIP_PYTHON EDITABLE; do
  eval "value=\${$old:-}"
  [ -z "$value" ] || note "$old has no meaning here: dair has no Python in it"
done

make_work
if [ -z "$binaries" ]; then
  [ -f "$install/../Cargo.toml" ] || fail "programs are built in a clone of the repository; with programs that are built, say --binaries FOLDER"
  has cargo || fail "cargo is missing: install Rust from https://rustup.rs, then run this again"
  cd "$install/.."
  binaries=${CARGO_TARGET_DIR:-target}/dist
  change cargo build --profile dist --locked -p dair-host --bin dair --bin host-worker || fail "the build failed, see above"
fi
case $binaries in /*) ;; *) binaries=$(pwd)/$binaries ;; esac
if [ -z "$dry" ]; then
  for program in dair host-worker; do
    [ -x "$binaries/$program" ] || misuse "--binaries: there is no program $binaries/$program"
    "$binaries/$program" --version >/dev/null || fail "$binaries/$program does not run here"
  done
fi

# A file of the installation: under its name all at once, so that a program that runs keeps its own.
put() { # MODE SOURCE FILE-BELOW-PREFIX
  if [ -n "$dry" ]; then
    print_command install -D -m "$1" "$2" "$prefix/$3"
    return
  fi
  mkdir -p "$prefix/${3%/*}" && cp "$2" "$prefix/$3.new" && chmod "$1" "$prefix/$3.new" && mv -f "$prefix/$3.new" "$prefix/$3" ||
    fail "cannot write $prefix/$3; another --prefix, or the rights of root?"
  say "$3" >>"$work/manifest"
}

: >"$work/manifest"
for program in dair host-worker; do put 755 "$binaries/$program" "bin/$program"; done
for program in dair host-worker; do
  for shell in bash zsh fish; do
    case $shell in
      bash) file=share/bash-completion/completions/$program ;;
      zsh) file=share/zsh/site-functions/_$program ;;
      fish) file=share/fish/vendor_completions.d/$program.fish ;;
    esac
    script=$work/$program.$shell
    if [ -n "$dry" ]; then
      print_command "$binaries/dair" completions "$shell" --of "$program"
    else
      "$binaries/dair" completions "$shell" --of "$program" >"$script" || fail "$binaries/dair makes no completions; is it an older one?"
    fi
    put 644 "$script" "$file"
  done
done
mkdir "$work/man"
change "$binaries/dair" man "$work/man" >/dev/null || fail "$binaries/dair makes no manual pages; is it an older one?"
for page in "$work"/man/*; do
  if [ -f "$page" ]; then put 644 "$page" "share/man/man1/${page##*/}"; fi
done
# From where they are installed already, there is nothing to copy.
if [ "$install" != "$(cd "$prefix/share/dair/install" 2>/dev/null && pwd)" ]; then
  # What makes packages stays in the repository, which it needs.
  (cd "$install" && find . -type f ! -name '.*' ! -name quickstart.sh ! -name 'package_*' ! -name release.sh ! -name licences.py \
    ! -name same_bytes.sh ! -name '*.ld' \
    ! -path './debian/*' ! -path './container/*' ! -path '*__pycache__*' ! -name manifest | sed 's|^\./||' | sort) >"$work/scripts"
  while IFS= read -r file; do
    mode=644
    [ ! -x "$install/$file" ] || mode=755
    put "$mode" "$install/$file" "share/dair/install/$file"
  done <"$work/scripts"
else
  sed -n '/^share\/dair\/install\//p' "$install/manifest" >>"$work/manifest"
fi
[ -z "$dry" ] || exit 0
# What an older version had and this one has not.
if [ -f "$prefix/share/dair/install/manifest" ]; then
  grep -vxFf "$work/manifest" "$prefix/share/dair/install/manifest" | while IFS= read -r file; do
    case /$file/ in */../*) ;; *) rm -f "$prefix/$file" ;; esac
  done
fi
cp "$work/manifest" "$prefix/share/dair/install/manifest"
say "installed $("$prefix/bin/dair" --version) in $prefix"
case ":$PATH:" in *":$prefix/bin:"*) ;; *) note "$prefix/bin is not in PATH" ;; esac
