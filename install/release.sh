#!/bin/sh
# Makes all that a release gives away, into a folder: bundles of workers, static programs, Debian's packages, wheels, a bill of
# materials, release notes, checksums. It publishes nothing.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: install/release.sh [--tag TAG] [--out FOLDER] [--dry-run]

  --tag TAG     what the release is tagged with: refused if it is not v and the version of Cargo.toml
  --out FOLDER  where all goes; it must be empty or not there yet [default: dist in the repository]
  --dry-run     check what can be checked, and print the commands instead of running them

What is committed is what is made: a tree with changes is refused, and so is a version that has no section in CHANGELOG.md.
Takes Rust's targets, C compilers for them (Debian: musl-tools gcc-aarch64-linux-gnu), cargo-deb and cargo-cyclonedx (by cargo
install), GNU tar and Python 3.

Example:
  install/release.sh --tag v0.1.0 --out dist
USAGE
}

repo=$(cd "$install/.." && pwd)
tag=
out=$repo/dist
dry=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --dry-run)
      dry=yes
      shift
      ;;
    --tag | --out)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      [ -n "$2" ] || misuse "$1 is empty"
      case $1 in --tag) tag=$2 ;; --out) out=$2 ;; esac
      shift 2
      ;;
    *) misuse "unknown argument $1" ;;
  esac
done
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$repo"

# What is committed, and what it is called.
version=$(sed -n '/^\[workspace.package\]/,/^\[w.*dependencies\]/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || fail "Cargo.toml names no version of the workspace"
[ -z "$tag" ] || [ "$tag" = "v$version" ] || fail "--tag is $tag, but Cargo.toml says $version: the tag is v$version"
changes=$(git status --porcelain) || fail "$repo is no clone of the repository"
[ -z "$changes" ] || fail "the tree has changes that are not committed: $(printf %s "$changes" | tr '\n' ' ')"
# A section's title is `## 0.1.0` or, as Keep a Changelog has it, `## [0.1.0] - 2026-01-31`.
notes=$(awk -v version="$version" '
  /^## / { inside = ($2 == version || $2 == "[" version "]"); next }
  inside' CHANGELOG.md)
[ -n "$(printf %s "$notes" | tr -d '[:space:]')" ] ||
  fail "CHANGELOG.md has no section for $version: name what is there as Unreleased \"## $version\""
[ ! -d "$out" ] || [ -z "$(ls -A "$out")" ] || fail "$out is not empty: move away what is in it, or name another --out"

run() {
  say "+ $*"
  [ -n "$dry" ] || "$@"
}

if [ -z "$dry" ]; then
  for tool in cargo python3 tar gzip sha256sum; do
    has $tool || fail "$tool is not here"
  done
  cargo deb --version >/dev/null 2>&1 || fail "no cargo-deb: cargo install cargo-deb"
  cargo cyclonedx --version >/dev/null 2>&1 || fail "no cargo-cyclonedx: cargo install cargo-cyclonedx"
  mkdir -p "$out"
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repo/target}
export CARGO_TARGET_DIR
make_work

# The C compiler that TLS takes, of a target.
c_compiler() { # TRIPLE
  case $1 in
    x86_64-*) set -- x86_64-linux-musl-gcc musl-gcc ;;
    aarch64-*) set -- aarch64-linux-musl-gcc aarch64-linux-gnu-gcc ;;
  esac
  for compiler; do
    if has "$compiler"; then say "$compiler" && return; fi
  done
  [ -z "$dry" ] || { say "$1" && return; }
  fail "neither $* is here, a C compiler for TLS (Debian: musl-tools, gcc-aarch64-linux-gnu)"
}

say "dair $version, into $out"
run install/package_worker.sh --all --out "$out"
for triple in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
  compiler=$(c_compiler $triple)
  run env "CC_$(say $triple | tr - _)=$compiler" \
    cargo --config "targets/$triple.toml" --config "$(install/lib/same_bytes.sh $triple)" build --profile dist --locked -p dair-host --bin dair
  built=$work/$triple
  run mkdir "$built"
  run cp "$CARGO_TARGET_DIR/$triple/dist/dair" "$CARGO_TARGET_DIR/$triple/dist-worker/host-worker" "$built"
  folder=$work/dair-$version-$triple
  run mkdir "$folder"
  run cp "$built/dair" "$built/host-worker" LICENSE README.md CHANGELOG.md "$folder"
  # Whoever makes it, whenever: the same bytes.
  run tar --format=ustar --sort=name --owner=0 --group=0 --numeric-owner "--mtime=@$SOURCE_DATE_EPOCH" \
    --use-compress-program='gzip -9n' -C "$work" -cf "$out/dair-$version-$triple.tar.gz" "dair-$version-$triple"
  run env "DAIR=$CARGO_TARGET_DIR/x86_64-unknown-linux-musl/dist/dair" \
    install/package_deb.sh --binaries "$built" --triple $triple --out "$out"
  run install/package_wheel.py --binaries "$built" --triple $triple --out "$out"
done

# The bill of materials, made of a copy, since it is written beside each Cargo.toml; what it says of folders holds everywhere.
bill_of_materials() {
  mkdir "$work/source"
  git archive HEAD | tar -x -C "$work/source"
  cargo cyclonedx --quiet --manifest-path "$work/source/host/Cargo.toml" --format json --spec-version 1.5 --target all --override-filename sbom
  sed "s|file://$work/source|file://|g" "$work/source/host/sbom.json" >"$out/dair-$version.cdx.json"
}
run bill_of_materials
if [ -n "$dry" ]; then
  say "+ release notes: $(printf '%s\n' "$notes" | wc -l) lines of CHANGELOG.md"
else
  printf '%s\n' "$notes" | sed '/./,$!d' >"$out/RELEASE-NOTES.md"
fi
checksums() {
  (cd "$out" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort | xargs sha256sum >"$work/SHA256SUMS")
  mv "$work/SHA256SUMS" "$out/SHA256SUMS"
}
run checksums
