# shellcheck shell=sh disable=SC2034,SC2154
# What the scripts of this folder share: messages, checks of what users give, the nodes file, ssh, and work on many nodes
# side by side. POSIX sh. A script that reads it has set `install`, the folder of the scripts, and defines `usage`.

set -eu
# Ranges of characters are those of ASCII, and tools say what is expected of them.
LC_ALL=C
export LC_ALL
umask 022

# What may stand in a value: everything that crosses a shell of another machine is of these characters.
word_characters='A-Za-z0-9._+-'
path_characters='A-Za-z0-9._/+@-'
flag_characters='A-Za-z0-9._/+@:=,%~-'

# Port of workers unless another is given, as `dair` has it.
default_port=9990
# Most workers of a session, and bytes of a nodes file, as `dair` has them.
max_nodes=255
max_nodes_bytes=1048576

say() { printf '%s\n' "$*"; }
note() { printf 'note: %s\n' "$*" >&2; }

# Text from outside in a message: one line, of printable characters.
shown() { printf '%s' "$1" | tr -c '[:print:]' '?' | cut -c 1-200; }

fail() {
  printf 'error: %s\n' "$(shown "$*")" >&2
  exit 1
}

misuse() {
  printf 'error: %s (%s --help tells more)\n' "$(shown "$*")" "${0##*/}" >&2
  exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

# Whether a text has at least one character, and none but these.
only() { # CHARACTERS TEXT
  case $2 in '' | *[!$1]*) return 1 ;; esac
}

is_number() { # TEXT LEAST MOST
  only 0-9 "$1" && [ "${#1}" -le 9 ] && [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

is_port() { is_number "$1" 1 65535; }

# A folder on a node, which goes into commands there: no blank, no quote, no step upwards, and no option.
is_remote_folder() {
  only "$path_characters" "$1" || return 1
  case "/$1/" in */../* | */-*) return 1 ;; esac
  case $1 in / | . | ./) return 1 ;; esac
}

# Words that go to a program on a node.
are_words() { # TEXT
  for are_words_word in $1; do
    only "$flag_characters" "$are_words_word" || return 1
  done
  case $1 in *"$newline"*) return 1 ;; esac
}
newline='
'

# A file of this machine, which is only ever given to programs in quotes.
check_file() { # NAME VALUE
  case $2 in
    '') misuse "$1 is empty" ;;
    -*) misuse "$1 is $2, which begins like an option; write ./$2" ;;
    *[[:cntrl:]]*) misuse "$1 is \"$2\", which has a character that no path here may have" ;;
  esac
  [ -e "$2" ] || misuse "$1: there is no $2"
  [ -f "$2" ] || misuse "$1: $2 is no regular file"
  [ -r "$2" ] || misuse "$1: $2 can't be read"
}

# Options of ssh that a user gives: known ones only, and none that run a program here.
check_flags() { # NAME VALUE
  check_flags_after=
  case $2 in *"$newline"*) misuse "$1 has more than one line" ;; esac
  for check_flags_word in $2; do
    only "$flag_characters" "$check_flags_word" ||
      misuse "$1: \"$check_flags_word\" has a character that no option here may have"
    case $(printf '%s' "$check_flags_word" | tr '[:upper:]' '[:lower:]') in
      *proxy* | *command*) misuse "$1: $check_flags_word is refused, since it can run programs; put it into ~/.ssh/config" ;;
    esac
    case $check_flags_after in
      -p) is_port "$check_flags_word" || misuse "$1: \"$check_flags_word\" is not a port; allowed: 1 to 65535" ;;
      -?) ;;
      *)
        case $check_flags_word in
          -[piFoJcmb])
            check_flags_after=$check_flags_word
            continue
            ;;
          -p*) is_port "${check_flags_word#-p}" || misuse "$1: \"${check_flags_word#-p}\" is not a port; allowed: 1 to 65535" ;;
          -[iFoJcmb]?* | -[46Cqv]) ;;
          *) misuse "$1: $check_flags_word is not allowed; allowed: -p -i -F -o -J -c -m -b with a value, -4 -6 -C -q -v" ;;
        esac
        ;;
    esac
    check_flags_after=
  done
  [ -z "$check_flags_after" ] || misuse "$1: $check_flags_after needs a value"
}

# SSH_OPTS and SCP_OPTS of the environment, checked: `ssh_options` of all connections, `copy_options` of those that carry
# files. Files go through ssh, too, so that boards need no sftp server; scp's name of the port is understood.
read_ssh_options() {
  ssh_options=${SSH_OPTS:-}
  check_flags SSH_OPTS "$ssh_options"
  copy_options=$ssh_options
  if [ -n "${SCP_OPTS:-}" ]; then
    case $SCP_OPTS in *"$newline"*) misuse "SCP_OPTS has more than one line" ;; esac
    copy_options=$(printf ' %s' "$SCP_OPTS" | sed 's/ -P/ -p/g; s/^ //')
    check_flags SCP_OPTS "$copy_options"
  fi
}

# The line of a nodes file, as `dair --nodes-file` reads it: prints KIND TARGET SSH_PORT HOST PORT, where KIND is dair or
# dllama, TARGET what ssh connects to, and a missing port is -. Where something is wrong, prints what, and is false.
# Hosts are of fewer characters than for `dair`, since they go into commands.
node_of() ( # LINE
  target=${1#dllama://}
  kind=dair
  [ "$target" = "$1" ] || kind=dllama
  user=
  case $1 in
    *@*)
      user=${1%%@*}
      target=${1#*@}
      case $user in -*) user=';' ;; esac
      if ! only A-Za-z0-9._- "$user"; then
        say "\"${1%%@*}\" is no name of a user; write [USER@]HOST[:PORT]"
        return 1
      fi
      case $target in dllama://*) target=${target#dllama://} && kind=dllama ;; esac
      ;;
  esac
  characters=A-Za-z0-9._-
  port=-
  case $target in
    \[*\]) host=${target#[} && host=${host%]} characters=A-Za-z0-9._:%- ;;
    \[*\]:*) host=${target#[} && port=${target##*]:} && host=${host%%]*} characters=A-Za-z0-9._:%- ;;
    *:*) host=${target%:*} port=${target##*:} ;;
    *) host=$target ;;
  esac
  is_host=yes
  only "$characters" "$host" && [ "${#host}" -le 253 ] || is_host=
  case $host in -*) is_host= ;; esac
  # Brackets are for addresses of IPv6, and for nothing else.
  case $target in \[*) case $host in *:*) ;; *) is_host= ;; esac ;; esac
  if [ -z "$is_host" ]; then
    say "\"$target\" is not a host; write HOST:PORT, where HOST is a name, an IPv4 address or a [bracketed] IPv6 address"
    return 1
  fi
  if [ "$port" != - ] && ! is_port "$port"; then
    say "\"$port\" is not a port; allowed: 1 to 65535"
    return 1
  fi
  # Behind USER@ the port is ssh's.
  if [ -n "$user" ]; then
    say "$kind $user@$host $port $host -"
  else
    say "$kind $host - $host $port"
  fi
)

# Reads a nodes file into `$work/nodes`: in each line NUMBER KIND TARGET SSH_PORT HOST PORT of a worker, and sets `n_nodes`.
read_nodes() { # FILE PORT-OF-WORKERS-THAT-HAVE-NONE
  check_file NODES_FILE "$1"
  [ "$(wc -c <"$1")" -le "$max_nodes_bytes" ] ||
    misuse "the nodes file $1 has more than $max_nodes_bytes bytes; is it another file?"
  n_nodes=0
  number=0
  : >"$work/nodes"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=$(printf '%s' "${line%%#*}" | tr '\t\r\f\v' '    ' | sed 's/^ *//; s/ *$//')
    [ -n "$line" ] || continue
    case $line in *' '*) misuse "$1:$number: \"$line\" is more than one word; write one [USER@]HOST[:PORT] a line" ;; esac
    node=$(node_of "$line") || misuse "$1:$number: $node"
    # What a port that was left out is.
    node="${node% *} $(port=${node##* } && [ "$port" != - ] && say "$port" || say "$2")"
    address=$(say "$node" | cut -d ' ' -f 4-5)
    again=$(awk -v address="$address" '$5 " " $6 == address { print $7; exit }' "$work/nodes")
    [ -z "$again" ] || misuse "$1:$number: worker $(joined "$address") is on line $again already"
    n_nodes=$((n_nodes + 1))
    [ "$n_nodes" -le "$max_nodes" ] || misuse "$1:$number: more than $max_nodes workers; a session has no more"
    say "$n_nodes $node $number" >>"$work/nodes"
  done <"$1"
  [ "$n_nodes" -gt 0 ] || misuse "the nodes file $1 names no worker; write one HOST:PORT a line"
}

# HOST PORT as one word.
joined() { # HOST-AND-PORT
  case $1 in *:*\ *) say "[${1% *}]:${1#* }" ;; *) say "${1% *}:${1#* }" ;; esac
}

# Sets the fields of a node: number, kind, target, ssh_port, host, port; and `name`, as people know it.
node_fields() { # NUMBER
  # shellcheck disable=SC2046,SC2034 # words are what is wanted; not every script uses all of them
  set -- $(sed -n "${1}p" "$work/nodes")
  # shellcheck disable=SC2034
  number=$1 kind=$2 target=$3 ssh_port=$4 host=$5 port=$6
  name=$target
  [ "$ssh_port" = - ] || name=$target:$ssh_port
}

# Prints a command as one that could be typed.
print_command() {
  print_command_line=
  for print_command_word in "$@"; do
    only "$flag_characters" "$print_command_word" ||
      print_command_word="'$(printf '%s' "$print_command_word" | sed "s/'/'\\\\''/g")'"
    print_command_line="$print_command_line $print_command_word"
  done
  say "  ${print_command_line# }$input"
}

# Runs a command that changes something, or prints it where `dry` is set.
change() {
  if [ -n "$dry" ]; then print_command "$@"; else "$@"; fi
}
dry=
# What is printed behind a command of `on_node`: where its input comes from.
input=

# Runs a command with this one's input as a child that a signal reaches: a shell that waits in the foreground answers late.
interruptible() {
  {
    "$@" <&3 3<&- &
    child=$!
  } 3<&0
  interruptible_status=0
  wait "$child" || interruptible_status=$?
  child=
  return "$interruptible_status"
}
child=

# A command on the node of `target`, with this one's input. Keys only: nobody answers questions of many connections.
on_node() { # OPTIONS COMMAND…
  on_node_options=$1
  shift
  [ "$ssh_port" = - ] || on_node_options="-p $ssh_port $on_node_options"
  # shellcheck disable=SC2086 # options are words
  set -- ssh -T $on_node_options -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 \
    -o ServerAliveCountMax=3 -o ForwardAgent=no "$target" "$@"
  if [ -n "$dry" ]; then print_command "$@"; else interruptible "$@"; fi
}

# A function of `lib/node.sh` on the node.
ask_node() { # FUNCTION ARGUMENTS…
  input=" <$install/lib/node.sh"
  on_node "$ssh_options" sh -s -- "$@" <"$install/lib/node.sh"
}

# Runs a function for each node, so many at a time, each in a shell of its own with its node's fields set.
for_each_node() { # FUNCTION AT-A-TIME
  if [ -n "$dry" ]; then
    for_each_node_k=1
    while [ "$for_each_node_k" -le "$n_nodes" ]; do
      (node_fields "$for_each_node_k" && "$1")
      for_each_node_k=$((for_each_node_k + 1))
    done
    return 0
  fi
  # A pipe with one line for each that may run: who starts takes one, who is done puts it back.
  rm -f "$work/slots"
  mkfifo "$work/slots"
  exec 9<>"$work/slots"
  for_each_node_k=0
  while [ "$for_each_node_k" -lt "$2" ]; do
    echo >&9
    for_each_node_k=$((for_each_node_k + 1))
  done
  for_each_node_k=1
  jobs_running=
  while [ "$for_each_node_k" -le "$n_nodes" ]; do
    read -r _ <&9
    (
      trap - EXIT
      trap 'stop_child; exit 143' INT TERM HUP
      node_fields "$for_each_node_k"
      # Whatever fails is told by the function.
      "$1" </dev/null || true
      echo >&9
    ) &
    jobs_running="$jobs_running $!"
    for_each_node_k=$((for_each_node_k + 1))
  done
  for for_each_node_job in $jobs_running; do
    wait "$for_each_node_job" || true
  done
  jobs_running=
  exec 9>&-
}
jobs_running=

stop_child() {
  [ -n "$child" ] || return 0
  kill "$child" 2>/dev/null || true
  wait "$child" 2>/dev/null || true
}

# Makes `work`, a folder that is removed when the script ends, however that is. `at_end` may be defined by the script.
make_work() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/dair-install.XXXXXX") || fail "no folder for temporary files can be made in ${TMPDIR:-/tmp}"
  trap 'ended $?' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}
at_end() { :; }
ended() {
  trap '' INT TERM HUP
  set +e
  for ended_job in $jobs_running; do kill "$ended_job" 2>/dev/null; done
  for ended_job in $jobs_running; do wait "$ended_job" 2>/dev/null; done
  stop_child
  at_end
  rm -rf "$work"
  trap - EXIT
  exit "$1"
}

# SHA-256 of a file, in hexadecimal digits.
sha256() { # FILE
  if has sha256sum; then
    sha256sum <"$1"
  elif has shasum; then
    shasum -a 256 <"$1"
  elif has openssl; then
    openssl dgst -sha256 -r <"$1"
  else
    fail "no program for SHA-256: install sha256sum, shasum or openssl"
  fi | cut -d ' ' -f 1
}

# Size, time of the last change and inode of a file: what is the same as long as nobody has written it.
file_state() { stat -L -c '%s %Y %i' "$1" 2>/dev/null || stat -L -f '%z %m %i' "$1"; }

# SHA-256 of a large file, which is computed again only when the file has changed: a record is kept in the cache folder.
# A dry run, which writes nothing, takes what is recorded.
recorded_sha256() { # FILE
  recorded_folder=${DAIR_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/dair}/sha256
  recorded_path=$(cd "$(dirname "$1")" && pwd -P)/${1##*/}
  recorded=$recorded_folder/$(printf '%s' "$recorded_path" | cksum | tr ' ' -)
  recorded_state="$(file_state "$1") $recorded_path"
  if [ "$(sed -n 2p "$recorded" 2>/dev/null)" = "$recorded_state" ]; then
    sed -n 1p "$recorded"
  elif [ -n "$dry" ]; then
    say SHA256
  else
    recorded_digest=$(sha256 "$1")
    [ "$(file_state "$1") $recorded_path" = "$recorded_state" ] || fail "$1 was changed while it was read"
    # A cache that can't be written costs time only.
    { mkdir -p "$recorded_folder" && printf '%s\n%s\n' "$recorded_digest" "$recorded_state" >"$recorded"; } 2>/dev/null || true
    say "$recorded_digest"
  fi
}

# Bytes as people read them.
amount() { # BYTES
  awk -v n="$1" 'BEGIN { split("B kB MB GB TB", unit); for (i = 1; n >= 1000 && i < 5; i++) n /= 1000; printf(i > 1 && n < 100 ? "%.1f %s\n" : "%.0f %s\n", n, unit[i]) }'
}

# Lays out lines of fields with tabs between them; the last one may be of any length.
print_table() {
  awk -F '\t' '
    { rows = NR; for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } last[NR] = NF }
    END {
      for (r = 1; r <= rows; r++) {
        line = ""
        for (i = 1; i <= last[r]; i++) line = line (i < last[r] ? sprintf("%-" width[i] + 2 "s", cell[r, i]) : cell[r, i])
        sub(/ +$/, "", line)
        print line
      }
    }'
}

# The triple of which a node of this `uname -m` takes the bundle.
triple_of() { # MACHINE
  case $1 in
    x86_64 | amd64) say x86_64-unknown-linux-musl ;;
    aarch64 | arm64) say aarch64-unknown-linux-musl ;;
    armv7* | armv8l) say armv7-unknown-linux-gnueabihf ;;
    *) return 1 ;;
  esac
}
all_triples='x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-gnueabihf'

# The processor that a program is for, as the first word of triples names it; false for what is no program of Linux.
processor_of() { # FILE
  # The magic number, then at byte 18 the machine.
  case $(od -A n -t x1 -N 20 "$1" 2>/dev/null | tr -d ' \n') in
    7f454c46????????????????????????????3e00) say x86_64 ;;
    7f454c46????????????????????????????b700) say aarch64 ;;
    7f454c46????????????????????????????2800) say armv7 ;;
    *) return 1 ;;
  esac
}
