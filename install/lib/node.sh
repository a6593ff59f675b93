# shellcheck shell=sh
# What `deploy_workers.sh` does on a node: the script goes there as the input of `sh -s -- FUNCTION ARGUMENTS…`, so that
# nothing must be installed for it. Needs a POSIX sh, and what busybox has. Arguments were checked before they were sent.
#
#   DIR/worker         the unpacked bundle            DIR/bundle        name of the bundle it came from, as SHA-256
#   DIR/models/M       a model                        DIR/models/M.sha256   its SHA-256, the state of the file then, and how it came
#   DIR/models/M.D.part   as much of it as has come, D the first 16 digits of its SHA-256
#   DIR/key            the cluster's key, with mode 600

set -eu
LC_ALL=C
export LC_ALL

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

sha256() { # FILE
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum <"$1"
  elif command -v shasum >/dev/null 2>&1; then
    shasum -a 256 <"$1"
  else
    openssl dgst -sha256 -r <"$1"
  fi | cut -d ' ' -f 1
}

size() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }
state() { stat -c '%s %Y %i' "$1" 2>/dev/null || echo unknown; }

# The SHA-256 of a model, from its record where the file is as it was then.
model_sha256() { # FILE
  if [ "$(state "$1")" != unknown ] && [ "$(sed -n 2p "$1.sha256" 2>/dev/null)" = "$(state "$1")" ]; then
    sed -n 1p "$1.sha256"
    return
  fi
  model_digest=$(sha256 "$1")
  record "$1" "$model_digest"
  echo "$model_digest"
}

# How a file came here stands in its record: what was found is not removed with the worker.
record() { # FILE DIGEST [found|deployed]
  how=${3:-$(sed -n 3p "$1.sha256" 2>/dev/null || true)}
  printf '%s\n%s\n%s\n' "$2" "$(state "$1")" "${how:-found}" >"$1.sha256" 2>/dev/null || true
}

part() { echo "$1/models/$2.$(echo "$3" | cut -c 1-16).part"; } # DIR NAME DIGEST

# What the node is and has: lines NAME VALUE.
probe() { # DIR [NAME DIGEST BYTES]…
  dir=$1
  shift
  echo "system $(uname -s)"
  echo "machine $(uname -m)"
  echo "user $(id -un)"
  if [ -x "$dir/worker/host-worker" ]; then echo "bundle $(cat "$dir/bundle" 2>/dev/null)"; fi
  if [ -f "$dir/key" ]; then echo "key $(sha256 "$dir/key")"; fi
  while [ $# -gt 0 ]; do
    model=$dir/models/$1
    if [ ! -e "$model" ]; then
      echo "model $1 missing"
    elif [ "$(size "$model")" = "$3" ] && [ "$(model_sha256 "$model")" = "$2" ]; then
      echo "model $1 there"
    else
      echo "model $1 other"
    fi
    shift 3
  done
}

# Makes the folder, with the rights of root where the user's do not suffice and he may have them without a question.
make_folder() { # DIR
  if ! mkdir -p "$1/models" 2>/dev/null; then
    sudo -n mkdir -p "$1" 2>/dev/null && sudo -n chown "$(id -u):$(id -g)" "$1" && mkdir -p "$1/models" ||
      fail "$(id -un) may not make the folder $1; name one below his home, or let him use sudo without a password"
  fi
  [ -w "$1" ] || fail "$(id -un) may not write in $1"
}

# Bytes that have come of a model, and whether the rest fits.
begin() { # DIR NAME DIGEST BYTES
  part=$(part "$1" "$2" "$3")
  have=$(size "$part")
  if [ "$have" -gt "$4" ]; then
    rm -f "$part"
    have=0
  fi
  free_kb=$(df -Pk "$1" | awk 'END { print $4 }')
  need_kb=$((($4 - have) / 1024 + 1))
  [ "$free_kb" -ge "$need_kb" ] || fail "no room for $2 in $1: it needs $need_kb kB more, $free_kb kB are free"
  echo "$have"
}

# Takes a model that has come as a whole: code 3 where its bytes are others.
accept() { # DIR NAME DIGEST
  part=$(part "$1" "$2" "$3")
  if [ "$(sha256 "$part")" != "$3" ]; then
    rm -f "$part"
    exit 3
  fi
  mv -f "$part" "$1/models/$2"
  record "$1/models/$2" "$3" deployed
  # What is left of other files of the name.
  rm -f "$1/models/$2".????????????????.part
}

# Unpacks the bundle that has come, in place of the one that is there. A worker that runs keeps its program.
unpack() { # DIR DIGEST
  [ "$(sha256 "$1/bundle.part")" = "$2" ] || fail "the bundle came with other bytes; run it again"
  rm -rf "$1/worker.new"
  mkdir "$1/worker.new"
  gzip -dc "$1/bundle.part" | (cd "$1/worker.new" && tar -xf -)
  set -- "$1" "$2" "$1"/worker.new/dair-worker-*
  (cd "$3" && sha256_check) || fail "the bundle's files are not those of its SHA256SUMS"
  rm -rf "$1/worker"
  mv "$3" "$1/worker"
  rm -rf "$1/worker.new" "$1/bundle.part"
  echo "$2" >"$1/bundle"
}

sha256_check() {
  while read -r digest file; do
    [ "$(sha256 "./$file")" = "$digest" ] || return 1
  done <SHA256SUMS
}

# Puts the key that has come in its place.
take_key() { # DIR
  chmod 600 "$1/key.part"
  mv -f "$1/key.part" "$1/key"
}

# The keys of this node's own ssh server, as it shows them to itself: who hears them through a connection that he trusts
# can tell others whom to believe.
host_keys() {
  # shellcheck disable=SC2086 # words are what is wanted
  set -- ${SSH_CONNECTION:?}
  ssh-keyscan -p "$4" "$3" 2>/dev/null | awk '!/^#/ { print $2, $3 }'
}

authorized=.ssh/authorized_keys

# Lets the owner of a key append to one file here, for a day at most, and do nothing else.
authorize() { # DIR NAME DIGEST TYPE KEY MARK
  cd
  case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
  until=$(date -d "@$(($(date +%s) + 86400))" +%Y%m%d%H%M)
  (umask 077 && mkdir -p .ssh)
  # A file that does not end with a line would lose its last key.
  if [ -s "$authorized" ] && [ -n "$(tail -c 1 "$authorized")" ]; then echo >>"$authorized"; fi
  (umask 077 && printf 'restrict,expiry-time="%s",command="cat >>%s" %s %s %s\n' \
    "$until" "$(part "$folder" "$2" "$3")" "$4" "$5" "$6" >>"$authorized")
}

# Takes that back.
unauthorize() { # MARK
  cd
  [ -f "$authorized" ] || return 0
  # The file itself is written, so that it stays what it is: a link, another's, with its rights.
  others=$(grep -v " $1\$" "$authorized" || true)
  if [ -n "$others" ]; then printf '%s\n' "$others" >"$authorized"; else rm -f "$authorized"; fi
  rmdir .ssh 2>/dev/null || true
}

# Sends a model on to the next node while it comes in here; `known` is set before this script to the next one's keys.
pass_on() { # DIR NAME DIGEST BYTES FROM-BYTE USER HOST PORT
  [ -n "${SSH_AUTH_SOCK:-}" ] || fail "its ssh server forwards no agent"
  command -v ssh >/dev/null 2>&1 || fail "it has no ssh"
  file=$1/models/$2
  [ "$(size "$file")" = "$4" ] && [ "$(sed -n 1p "$file.sha256" 2>/dev/null)" = "$3" ] || file=$(part "$1" "$2" "$3")
  # The one that is to be trusted is known by this name, however its address is written.
  trusted=$(mktemp "${TMPDIR:-/tmp}/dair-known.XXXXXX")
  trap 'rm -f "$trusted"' EXIT
  # shellcheck disable=SC2154 # set before this script
  printf '%s\n' "$known" | sed 's/^/next-node /' >"$trusted"
  as_it_comes "$file" "$4" "$5" |
    ssh -T -F none -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o StrictHostKeyChecking=yes \
      -o UserKnownHostsFile="$trusted" -o GlobalKnownHostsFile=none -o HostKeyAlias=next-node -o CheckHostIP=no \
      -o ForwardAgent=no -p "$8" "$6@$7" true
}

as_it_comes() { # FILE BYTES FROM-BYTE
  at=$3
  patience=60
  while [ "$at" -lt "$2" ]; do
    now=$(size "$1")
    if [ "$now" -gt "$at" ]; then
      tail -c "+$((at + 1))" "$1" | head -c $((now - at)) || return 1
      at=$now
      patience=60
    elif [ "$patience" -gt 0 ]; then
      patience=$((patience - 1))
      sleep 1
    else
      fail "nothing came in for a minute"
    fi
  done
}

start() { # DIR ARGUMENTS…
  dir=$1
  shift
  sh "$dir/worker/install.sh" "$@"
}

remove() { # DIR [--keep-models]
  if [ ! -x "$1/worker/uninstall.sh" ]; then
    # Of a deployment that did not come so far.
    rmdir "$1/models" "$1" 2>/dev/null || true
    echo "nothing there"
    return
  fi
  dir=$1
  shift
  sh "$dir/worker/uninstall.sh" "$@"
}

"$@"
