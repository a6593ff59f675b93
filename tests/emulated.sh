#!/usr/bin/env bash
# The whole test suites of core and host, command lines included, on emulated ARM cores: tests/emulated.sh [CORE…]
#
# Without an argument on cortex-a72 (Raspberry Pi 4), cortex-a76 (Pi 5) and max (all that qemu knows); `.ci/run` takes a part of them.
# Takes half an hour for each core, Debian's qemu-user-static and util-linux, and a Linux where users have namespaces and binfmt_misc
# (6.7 and newer): in one of its own, programs for ARM that tests start are given to qemu by the system. OUTPUT (a folder) [a temporary
# one] gets what the tests print. Exit code 1 where a test fails.
set -euo pipefail
cd "$(dirname "$0")/.."
triple=aarch64-unknown-linux-musl
cores=("$@")
[ $# -gt 0 ] || cores=(cortex-a72 cortex-a76 max)
for tool in cargo unshare qemu-aarch64-static; do
  command -v $tool >/dev/null || { echo "error: $tool is missing" >&2; exit 1; }
done
output=${OUTPUT:-$(mktemp -d)}
mkdir -p "$output"
qemu=$(command -v qemu-aarch64-static)

# A folder and a program for each suite.
suites=$(cargo --config targets/$triple.toml test --no-default-features -p dair-core -p dair-host --lib --bins --tests --no-run \
  --message-format json-render-diagnostics |
  sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"test":true}.*"executable":"\([^"]*\)".*/\1 \2/p')
[ -n "$suites" ] || { echo 'error: cargo built no tests' >&2; exit 1; }

# Programs of the class, byte order, kinds and processor that these bytes of a file's head tell are given to qemu, which is opened now.
head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
rule=":dair-aarch64:M::$head:$mask:$qemu:F"

status=0
for core in "${cores[@]}"; do
  while read -r folder program; do
    suite=$(basename "$program")
    start=$SECONDS said="$output/$core-${suite%-*}.txt" result=passed
    # shellcheck disable=SC2016 # the inner shell's
    (cd "$folder" && QEMU_CPU=$core unshare --user --map-root-user --mount sh -euc '
      mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
      printf %s "$1" >/proc/sys/fs/binfmt_misc/register
      exec timeout 7200 "$2"' sh "$rule" "$program") >"$said" 2>&1 </dev/null || result=FAILED status=1
    tail=$(grep '^test result' "$said" || tail -n 1 "$said")
    printf '%s  %-10s %-12s %5d s  %s\n' $result "$core" "${suite%-*}" $((SECONDS - start)) "$tail"
  done <<<"$suites"
done
echo "what the tests printed is in $output"
exit $status
