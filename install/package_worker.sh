#!/bin/sh
# Makes the bundles that go to nodes: host-worker as one static file, and what belongs to it.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: package_worker.sh [--all | --triple TRIPLE …] [--binary FILE] [--out FOLDER] [--dry-run]

Makes FOLDER/dist-worker-bundle-TRIPLE.tar.gz with host-worker, its services, install.sh, uninstall.sh, licences and
checksums. The same sources and tools give the same bytes.

  --triple TRIPLE   x86_64-unknown-linux-musl, aarch64-unknown-linux-musl (64-bit Raspberry Pi OS, ARM servers) or
                    armv7-unknown-linux-gnueabihf (32-bit boards); may be given several times [default: this machine's]
  --all             all three
  --binary FILE     take this host-worker instead of building one; the triple is that of its processor
  --out FOLDER      [default: dist in the repository]
  --dry-run         print the commands and run none
  --help            this text

Environment:
  BUNDLE_PATH       the file to make, for one triple
  PYTHON            Python 3, which gathers the licences [default: python3]
  SOURCE_DATE_EPOCH the time of all files in the bundle [default: that of the last commit]

Examples:
  package_worker.sh --all
  BUNDLE_PATH=worker.tar.gz package_worker.sh --triple aarch64-unknown-linux-musl
USAGE
}

triples=
binary=
out=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --all) triples=$all_triples ;;
    --triple | --binary | --out)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in
        --triple)
          case " $all_triples " in *" $2 "*) only 'a-z0-9_-' "$2" ;; *) false ;; esac || misuse "--triple is \"$2\"; allowed: $all_triples"
          case " $triples " in *" $2 "*) ;; *) triples="$triples $2" ;; esac
          ;;
        --binary) check_file --binary "$2" && binary=$2 ;;
        --out) out=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry=yes ;;
    *) misuse "unknown argument $1" ;;
  esac
  shift
done
case $out in -* | *[[:cntrl:]]*) misuse "--out is \"$out\"; a folder is expected" ;; esac
case ${BUNDLE_PATH:-} in -* | *[[:cntrl:]]*) misuse "BUNDLE_PATH is \"$BUNDLE_PATH\"; a file is expected" ;; esac
python=${PYTHON:-python3}
only "$path_characters" "$python" || misuse "PYTHON is \"$python\"; the name of a program is expected"
if [ -n "$binary" ]; then
  processor=$(processor_of "$binary") || misuse "--binary: $binary is no program for Linux on x86-64, AArch64 or ARMv7"
  triple=$(triple_of "$processor")
  [ -z "$triples" ] || [ "${triples# }" = "$triple" ] || misuse "--binary: $binary is a program for $processor, and goes with --triple $triple"
  triples=$triple
fi
if [ -z "$triples" ]; then
  triples=$(triple_of "$(uname -m)") || misuse "no bundle is made for $(uname -m); say --triple"
fi
# shellcheck disable=SC2086 # one word a triple
set -- $triples
[ -z "${BUNDLE_PATH:-}" ] || [ $# = 1 ] || misuse "BUNDLE_PATH names one file, and $# bundles are asked for; use --out"
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$install" log -1 --format=%ct 2>/dev/null || echo 0)}
only 0-9 "$epoch" && [ "${#epoch}" -le 11 ] || misuse "SOURCE_DATE_EPOCH is \"$epoch\"; seconds since 1970 are expected"

from=$(pwd)
absolute() { case $1 in /*) say "$1" ;; *) say "$from/$1" ;; esac; }
[ -z "$binary" ] || binary=$(absolute "$binary")
cd "$install/.."
repo=$(pwd)
[ -f Cargo.toml ] || fail "bundles are made in a clone of the repository; $repo is none"
version=$(sed -n 's/^version = "\([0-9a-z.+-]*\)"$/\1/p' Cargo.toml | head -n 1)
[ -n "$out" ] && out=$(absolute "$out") || out=$repo/dist
has "$python" || fail "$python is missing: licences are gathered with Python 3; install it, or name it in PYTHON"
tar=tar
for each in tar gtar; do
  if $each --version 2>/dev/null | grep -q GNU; then tar=$each && break; fi
done
$tar --version 2>/dev/null | grep -q GNU || fail "GNU tar is missing, which makes the same bytes each time (macOS: brew install gnu-tar)"
make_work

# rustup's compiler as users have it; where its server is out of reach, Debian's, which targets/setup-cross.sh brings.
build() { # TRIPLE: sets `binary`
  triple=$1
  # Nothing is unwound in this profile, so tables for that are not needed, those of Rust's own library included. Rust's own linker
  # keeps one of functions that are alike.
  smaller='"-Cforce-unwind-tables=no"'
  case $triple in
    *-musl)
      only "$path_characters" "$repo" || fail "bundles are made in a folder whose name has letters, digits and ._/@+- alone; $repo is another"
      smaller=$smaller,'"-Clink-arg=--icf=all","-Clink-arg=--no-eh-frame-hdr","-Clink-arg='$repo'/install/lib/no_unwind_tables.ld"'
      ;;
  esac
  same_bytes=$("$install/lib/same_bytes.sh" "$triple") || fail "host-worker for $triple can't be built from here, see above"
  # Before the command, as the configuration of the target: cargo takes the one place or the other.
  set -- --config "target.$triple.rustflags=[$smaller]" --config "$same_bytes" \
    build --profile dist-worker --locked --no-default-features -p dair-host --bin host-worker
  target_folder=$(absolute "${CARGO_TARGET_DIR:-$repo/target}")
  binary=$target_folder/$triple/dist-worker/host-worker
  has cargo || fail "cargo is missing: install Rust from https://rustup.rs, then run this again"
  if [ -n "$dry" ]; then
    print_command cargo --config "targets/$triple.toml" "$@"
    return
  fi
  if [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ] || { has rustup && rustup target add "$triple"; }; then
    cargo --config "targets/$triple.toml" "$@" || fail "host-worker for $triple could not be built, see above"
  elif [ -x "$target_folder/debian/cargo" ]; then
    note "rustup could not add $triple: Debian's compiler stands in"
    "$target_folder/debian/cargo" "$triple" "$@" || fail "host-worker for $triple could not be built, see above"
    binary=$target_folder/debian/target/$triple/dist-worker/host-worker
  else
    fail "rustup could not add $triple; on Debian, targets/setup-cross.sh $target_folder/debian brings another compiler"
  fi
}

package() { # TRIPLE
  triple=$1
  name=dair-worker-$version-$triple
  bundle=$out/dist-worker-bundle-$triple.tar.gz
  [ -z "${BUNDLE_PATH:-}" ] || bundle=$(absolute "$BUNDLE_PATH")
  given=$binary
  [ -n "$given" ] || build "$triple"
  folder=$work/$name
  if [ -n "$dry" ]; then
    print_command install -m 755 "$binary" "$name/host-worker"
    print_command "$python" install/lib/licences.py "$triple"
    print_command "$tar" -cf "$bundle" "$name"
    binary=$given
    return
  fi
  mkdir -p "$folder/services" "$(dirname "$bundle")"
  cp "$binary" "$folder/host-worker"
  binary=$given
  chmod 755 "$folder/host-worker"
  cp "$install/node/install.sh" "$install/node/uninstall.sh" "$folder"
  cp "$install/services/dair-worker.service" "$install/services/dair-worker.initd" "$folder/services"
  cp LICENSE "$folder/LICENSE"
  "$python" "$install/lib/licences.py" "$triple" >"$folder/THIRD-PARTY-LICENSES" || fail "the licences could not be gathered, see above"
  chmod 644 "$folder"/LICENSE "$folder"/THIRD-PARTY-LICENSES
  find "$folder/services" -type f -exec chmod 644 {} +
  chmod 755 "$folder"/*.sh
  (cd "$folder" && find . -type f | sed 's|^\./||' | sort | while read -r file; do
    printf '%s  %s\n' "$(sha256 "$file")" "$file"
  done) >"$work/sums"
  mv "$work/sums" "$folder/SHA256SUMS"
  # Whoever makes it, whenever: the same bytes.
  (cd "$work" && $tar --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -cf - "$name") |
    gzip -9n >"$bundle.new"
  mv -f "$bundle.new" "$bundle"
  rm -rf "$folder"
  say "$bundle: $(amount "$(wc -c <"$bundle")"), SHA-256 $(sha256 "$bundle")"
}

for triple in "$@"; do package "$triple"; done
