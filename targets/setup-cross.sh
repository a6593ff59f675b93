#!/usr/bin/env bash
# Where rustup's server is out of reach: Debian's own compiler for the targets of this folder. Needs Debian 12, x86-64,
# root. Rust's standard library is then built from source, so the first build of a target takes minutes.
#
#   targets/setup-cross.sh FOLDER           installs packages; FOLDER/cargo and what it needs appear
#   FOLDER/cargo TRIPLE test -p dair-core   stands for: cargo --config targets/TRIPLE.toml test -p dair-core
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
targets=$(cd "$(dirname "$0")" && pwd)

packages=(
  rustc-web cargo-web rust-web-src                # compiler, cargo, source of the standard library
  musl-tools musl-dev:arm64 gcc-aarch64-linux-gnu # musl for both processors; gcc links for aarch64
  libc6-dev-arm64-cross
  gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
)
# Taken apart, not installed: the two cannot be installed together.
unwinders=(libunwind-14-dev:amd64 libunwind-14-dev:arm64)

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ] || [ ! -d "$folder/unwind/arm64" ]; then
  export DEBIAN_FRONTEND=noninteractive
  dpkg --add-architecture arm64
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  [ ${#missing[@]} = 0 ] ||
    apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install "${missing[@]}"
  for unwinder in "${unwinders[@]}"; do
    temp=$(mktemp -d "$folder/unwind.XXXXXX")
    chmod 755 "$temp"
    (cd "$temp" && apt-get -qq -o APT::Sandbox::User=root download "$unwinder" && dpkg-deb -x ./*.deb .)
    mkdir -p "$folder/unwind/${unwinder#*:}"
    mv -f "$temp/usr/lib/llvm-14/lib/libunwind.a" "$folder/unwind/${unwinder#*:}/"
    rm -rf "$temp"
  done
fi

# Static musl with Debian's C library. Rust wants an unwinder named libunwind: LLVM's does without anything of glibc's but
# the checked fprintf, which it calls only on its way to abort().
static='"-Clink-self-contained=no", "-Ctarget-feature=+crt-static", "-Crelocation-model=static",
  "-Clink-arg=-Wl,--defsym=__fprintf_chk=abort"'
cat >"$folder/cross.toml" <<TOML
[target.x86_64-unknown-linux-musl]
linker = "musl-gcc"
rustflags = [$static, "-Lnative=$folder/unwind/amd64"]

[target.aarch64-unknown-linux-musl]
linker = "aarch64-linux-gnu-gcc"
rustflags = [$static, "-Lnative=$folder/unwind/arm64",
  "-Clink-arg=-specs=/usr/lib/aarch64-linux-musl/musl-gcc.specs"]

# Debian's Rust comes without a linker of its own.
[target.aarch64-unknown-none]
linker = "aarch64-linux-gnu-ld"
TOML

# /usr/bin's compiler is named in full: rustup's stays first in PATH.
cat >"$folder/cargo.new" <<SH
#!/bin/sh
triple=\$1
shift
case \$triple in
  # Without an operating system nobody else has memcpy and its kin.
  *-none*) set -- -Zbuild-std=core -Zbuild-std-features=compiler-builtins-mem "\$@" ;;
  *) set -- -Zbuild-std=std,panic_unwind,test "\$@" ;;
esac
export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO_TARGET_DIR="$folder/target"
exec /usr/bin/cargo --config "$targets/\$triple.toml" --config "$folder/cross.toml" "\$@"
SH
chmod +x "$folder/cargo.new"
mv "$folder/cargo.new" "$folder/cargo"
echo "$folder/cargo TRIPLE … builds with $(/usr/bin/rustc -V)"
