#!/bin/sh
# Makes Debian's packages, dair and dair-worker, of static binaries that are there already.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: install/package_deb.sh --binaries FOLDER [--triple TRIPLE] [--out FOLDER]

  --binaries FOLDER  where dair and host-worker are, static, of that target
  --triple TRIPLE    x86_64-unknown-linux-musl, aarch64-unknown-linux-musl or armv7-unknown-linux-gnueabihf
                     [default: x86_64-unknown-linux-musl]
  --out FOLDER       where the packages go [default: dist in the repository]

Takes cargo-deb: cargo install cargo-deb. Man pages and completions are made by the dair that is packaged where it runs here and
knows how; those of another target by the dair that DAIR names.
The same commit and binaries give the same packages.

Example:
  install/package_deb.sh --binaries target/x86_64-unknown-linux-musl/dist
USAGE
}

repo=$(cd "$install/.." && pwd)
binaries=
triple=x86_64-unknown-linux-musl
out=$repo/dist
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage && exit ;;
  --binaries | --triple | --out)
    [ $# -ge 2 ] || misuse "$1 needs a value"
    [ -n "$2" ] || misuse "$1 is empty"
    case $1 in --binaries) binaries=$2 ;; --triple) triple=$2 ;; --out) out=$2 ;; esac
    shift 2
    ;;
  *) misuse "unknown argument $1" ;;
  esac
done
[ -n "$binaries" ] || misuse "--binaries is missing"
# The number is what ELF calls the processor.
case $triple in
x86_64-unknown-linux-musl) elf=62 ;;
aarch64-unknown-linux-musl) elf=183 ;;
armv7-unknown-linux-gnueabihf) elf=40 ;;
*) misuse "--triple is $triple; the packages are made for x86_64-unknown-linux-musl, aarch64-unknown-linux-musl and armv7-unknown-linux-gnueabihf" ;;
esac
for file in dair host-worker; do
  [ -f "$binaries/$file" ] || fail "no $file in $binaries: build it for $triple first"
  found=$(od -An -tu1 -j18 -N1 "$binaries/$file" | tr -d ' ')
  [ "$found" = "$elf" ] || fail "$binaries/$file is not for $triple"
done
cargo deb --version >/dev/null 2>&1 || fail "no cargo-deb: cargo install cargo-deb"

binaries=$(cd "$binaries" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repo" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
version=$(sed -n '/^\[workspace.package\]/,/^\[[^w]/s/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' "$repo/host/Cargo.toml")
make_work

# As if cargo had built here; what goes to /usr/share lies beside the binaries.
stage=$work/$triple/release
mkdir -p "$stage"
cp "$binaries/dair" "$binaries/host-worker" "$stage"
dair=${DAIR:-$stage/dair}
for package in dair dair-worker; do
  share=$stage/share-$package
  case $package in dair) program=dair ;; *) program="host-worker" ;; esac
  mkdir -p "$share/doc/$package"
  {
    printf '%s (%s-1) unstable; urgency=medium\n\n  * What is new: CHANGELOG.md of the source.\n\n' "$package" "$version"
    printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
  } | gzip -9n >"$share/doc/$package/changelog.Debian.gz"
  if "$dair" man "$work/man" >/dev/null 2>&1; then
    mkdir -p "$share/man/man1"
    for page in "$work/man"/*.1; do
      case ${page##*/}:$package in
      host-worker*:dair | dair*:dair-worker) ;;
      *) gzip -9n <"$page" >"$share/man/man1/${page##*/}.gz" ;;
      esac
    done
  fi
  if "$dair" completions bash --of "$program" >"$work/completion" 2>/dev/null; then
    mkdir -p "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    mv "$work/completion" "$share/bash-completion/completions/$program"
    "$dair" completions zsh --of "$program" >"$share/zsh/vendor-completions/_$program"
    "$dair" completions fish --of "$program" >"$share/fish/vendor_completions.d/$program.fish"
  fi
done

cd "$repo"
for variant in '' worker; do
  CARGO_TARGET_DIR=$work cargo deb --quiet --package dair-host --no-build --no-strip --locked --target "$triple" \
    ${variant:+--variant "$variant"} --output "$out" || fail "cargo-deb failed, see above"
done
case $triple in x86_64*) architecture=amd64 ;; aarch64*) architecture=arm64 ;; *) architecture=armhf ;; esac
for package in dair dair-worker; do
  deb=$out/${package}_$version-1_$architecture.deb
  [ -f "$deb" ] || fail "cargo-deb made no $deb"
done
