#!/bin/sh
# Makes the flash that the program reads: a line of 64 bytes that says how long the files are, the model, the tokenizer.
set -eu
usage='usage: flash.sh MODEL.m IMAGE  (the tokenizer is MODEL.t)'
fail() { echo "error: $1" >&2; exit "${2:-1}"; }
[ $# = 2 ] || fail "$usage" 2
bank=67108864 # bytes of each of the two banks of QEMU's virt machine; an image of another size is refused there
model=$1 image=$2
case $model in *.m) tokenizer=${model%.m}.t ;; *) fail "$model: the name of a model ends in .m; $usage" 2 ;; esac
for file in "$model" "$tokenizer"; do
  [ -f "$file" ] || fail "$file: no such file; \`dair convert\` makes both"
done
model_bytes=$(($(wc -c <"$model"))) tokenizer_bytes=$(($(wc -c <"$tokenizer")))
free=$((bank - 64 - model_bytes - tokenizer_bytes))
[ $free -ge 0 ] || fail "$model and $tokenizer: $((-free)) bytes more than a bank of flash holds"
{
  printf '%-63s\n' "dair-flash $model_bytes $tokenizer_bytes"
  cat "$model" "$tokenizer"
} >"$image"
truncate -s $bank "$image"
