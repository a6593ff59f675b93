#!/bin/sh
# Brings workers, models and the cluster's key to the nodes of a file, by ssh, and starts them.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: deploy_workers.sh [OPTIONS] NODES_FILE REMOTE_DIR
       deploy_workers.sh --uninstall [--keep-models] NODES_FILE REMOTE_DIR

  NODES_FILE        one [USER@]HOST[:PORT] a line, as nodes.example shows
  REMOTE_DIR        folder on the nodes: /opt/dair, or dair for one in the user's home

  --model FILE      a model (.m) that the workers are to have; may be given several times. It is sent only where it is
                    missing or has another SHA-256, and a copy that broke off goes on where it was
  --chain           nodes pass the model on to each other while it comes, so that it leaves this machine once
  --key FILE        the cluster's key [default: DAIR_KEY_FILE, else ~/.config/dair/key]
  --insecure        without a key: whoever reaches a worker's port may use it
  --bundles FOLDER  where package_worker.sh has put the bundles [default: dist in the repository]
  --port PORT       port of workers whose line does not name it [default: WORKER_PORT, else 9990]
  --worker-args 'ARGUMENTS'   more for host-worker, such as '--threads 4 --memory 2GiB'
  --service KIND    auto, system or user: who keeps the worker running [default: auto: systemd or OpenRC where that may be
                    done as root or by sudo without a password and REMOTE_DIR is in nobody's home; else a process of the
                    user, which a reboot ends]
  --parallel N      so many nodes at a time [default: 8]
  --uninstall       end the workers and remove what was deployed; --keep-models leaves models
  --dry-run         print all commands that would be run on a node which has nothing, and run none
  --help            this text

Environment:
  SSH_OPTS     options of ssh, such as '-p 2222 -i ~/.ssh/cluster'; what runs programs (a proxy, say) goes into ~/.ssh/config
  SCP_OPTS     the same for connections that carry files, with scp's -P for the port [default: SSH_OPTS]
  BUNDLE_PATH  one bundle, for nodes of its processor
  WORKER_PORT  see --port

Examples:
  deploy_workers.sh --model smollm2.m nodes.txt /opt/dair
  deploy_workers.sh --dry-run --model smollm2.m nodes.txt /opt/dair
  deploy_workers.sh --chain --model llama-70b.m nodes.txt dair

ssh must let you in without a question: a key (ssh-copy-id), and a host that is known (log in once, or SSH_OPTS='-o
StrictHostKeyChecking=accept-new'). With --chain a node opens a connection to the next one. It signs in by a key that is made
for this run, stays in an agent on this machine, and may do one thing there, to append to the file of the model; the next
node's authorized_keys has it as long as the copy takes. Where a node cannot, this machine sends the model.
USAGE
}

models=
chain=
key=
insecure=
bundles=
port=${WORKER_PORT:-$default_port}
port_name=WORKER_PORT
worker_args=
service=auto
parallel=8
uninstall=
keep_models=
nodes_file=
remote_dir=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --model | --key | --bundles | --port | --worker-args | --service | --parallel)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in
        --model)
          check_file --model "$2"
          case $2 in *.m) ;; *) misuse "--model is $2, whose name does not end in .m; dair convert makes such a file" ;; esac
          only "$word_characters" "${2##*/}" || misuse "--model: ${2##*/} may have letters, digits and ._+- in its name; rename it"
          case "$newline$models" in *"/${2##*/}$newline"*) misuse "--model: ${2##*/} is given twice" ;; esac
          case $2 in */*) models="$models$2$newline" ;; *) models="$models./$2$newline" ;; esac
          ;;
        --key) key=$2 && check_file --key "$2" ;;
        --bundles) bundles=$2 && { [ -d "$2" ] || misuse "--bundles: there is no folder $2"; } ;;
        --port) port=$2 port_name=--port ;;
        --worker-args) worker_args=$2 ;;
        --service) service=$2 ;;
        --parallel) parallel=$2 ;;
      esac
      shift
      ;;
    --chain) chain=yes ;;
    --insecure) insecure=yes ;;
    --uninstall) uninstall=yes ;;
    --keep-models) keep_models=yes ;;
    --dry-run) dry=yes ;;
    -*) misuse "unknown argument $1" ;;
    *)
      if [ -z "$nodes_file" ]; then
        nodes_file=$1
      elif [ -z "$remote_dir" ]; then
        remote_dir=$1
      else
        misuse "$1 is one argument too many; a NODES_FILE and a REMOTE_DIR are expected"
      fi
      ;;
  esac
  shift
done
[ -n "$remote_dir" ] || misuse "a NODES_FILE and a REMOTE_DIR are expected"
is_remote_folder "$remote_dir" ||
  misuse "REMOTE_DIR is \"$remote_dir\"; allowed are letters, digits and ._/+@-, no .. and not / itself"
remote_dir=${remote_dir%/}
is_port "$port" || misuse "$port_name is \"$port\"; allowed: 1 to 65535"
is_number "$parallel" 1 255 || misuse "--parallel is \"$parallel\"; allowed: 1 to 255"
are_words "$worker_args" || misuse "--worker-args may have words of letters, digits and ._/+@:=,%~- in them"
case $service in auto | system | user) ;; *) misuse "--service is \"$service\"; allowed: auto, system, user" ;; esac
[ -z "${BUNDLE_PATH:-}" ] || check_file BUNDLE_PATH "$BUNDLE_PATH"
read_ssh_options
has ssh || fail "ssh is missing: install openssh-client"
if [ -z "$key$insecure$uninstall" ]; then
  key=${DAIR_KEY_FILE:-${XDG_CONFIG_HOME:-${HOME:-}/.config}/dair/key}
  [ -f "$key" ] || misuse "no key in $key: dair key new makes one; or --key FILE, or --insecure"
  check_file DAIR_KEY_FILE "$key"
fi

make_work
read_nodes "$nodes_file" "$port"

# The bundle for a processor: `bundle` and its SHA-256 in `bundle_digest`; what is wrong is said in `why`.
find_bundle() { # MACHINE
  if [ -n "$dry" ]; then
    bundle=${BUNDLE_PATH:-${bundles:-$install/../dist}/dist-worker-bundle-TRIPLE.tar.gz}
    bundle_digest=SHA256
    return
  fi
  triple=$(triple_of "$1") || { why="no bundle is made for processors of the name $(shown "$1")" && return 1; }
  if [ -n "${BUNDLE_PATH:-}" ]; then
    bundle=$BUNDLE_PATH
    case $(tar -tzf "$bundle" 2>/dev/null | sed -n '1s|/.*||p') in
      dair-worker-*-"$triple") ;;
      *) why="$bundle is no bundle for $triple" && return 1 ;;
    esac
  else
    bundle=${bundles:-$install/../dist}/dist-worker-bundle-$triple.tar.gz
    if [ ! -f "$bundle" ]; then
      why="there is no $bundle: package_worker.sh --triple $triple makes it"
      return 1
    fi
  fi
  bundle_digest=$(sha256 "$bundle")
}

# What became of a node: one line of the table.
result() { # FIELD VALUE
  say "$2" >"$work/$number.$1"
}
progress() { [ -n "$dry" ] || say "$name: $*"; }

# Ends the work on a node with what was wrong: the last line that a command has said, without the name of its program.
failed() { # WHAT
  why=$(grep -v '^Warning: Permanently added' "$work/$number.said" 2>/dev/null | tail -n 1 | tr -d '\r' | sed 's/^error: //')
  case $why in
    *'Host key verification failed.') why="$why Log in once, so that its key is known" ;;
  esac
  result error "$1${why:+: $(shown "$why")}"
  return 1
}
has_failed() { [ -e "$work/$number.error" ]; }
errors() { "$@" 2>"$work/$number.said"; }

started_at() { date +%s >"$work/$number.started"; }
took() { result seconds $(($(date +%s) - $(cat "$work/$number.started"))); }

# What a node has: asked once, kept in a file.
had() { sed -n "s/^$1 //p" "$work/$number.has"; } # NAME

prepare() {
  [ -z "$dry" ] || say "$name"
  started_at
  if [ "$kind" = dllama ]; then
    result service 'skipped: a worker of C++ Distributed-Llama'
    return 0
  fi
  ask_node_errors make_folder "$remote_dir" || { failed 'cannot make the folder'; return 1; }
  # shellcheck disable=SC2046 # words are what is wanted
  ask_node_errors probe "$remote_dir" $(cut -d ' ' -f 1-3 "$work/models") >"$work/$number.has" ||
    { failed 'cannot look at it'; return 1; }
  [ -z "$dry" ] || cat "$work/$number.has"
  if [ -z "$dry" ] && [ "$(had system)" != Linux ]; then
    result error "its system is $(shown "$(had system)"); bundles are for Linux"
    return 1
  fi
  find_bundle "$(had machine)" || { result error "$why"; return 1; }
  if [ "$(had bundle)" = "$bundle_digest" ]; then
    result bundle there
  else
    send "$bundle" "$remote_dir/bundle.part" && ask_node_errors unpack "$remote_dir" "$bundle_digest" ||
      { failed 'the bundle could not be installed'; return 1; }
    result bundle installed
  fi
  if [ -n "$key" ] && [ "$(had key)" != "$key_digest" ]; then
    send "$key" "$remote_dir/key.part" && ask_node_errors take_key "$remote_dir" ||
      { failed 'the key could not be copied'; return 1; }
  fi
}

ask_node_errors() { errors ask_node "$@"; }

# A small file; nobody else may read it on its way.
send() { # FILE REMOTE-FILE
  input=" <$1"
  if [ -n "$dry" ]; then
    on_node "$copy_options" "umask 077; cat >$2"
  else
    errors on_node "$copy_options" "umask 077; cat >$2" <"$1"
  fi
}

# Every model that the node lacks.
copy() {
  [ "$kind" = dair ] || return 0
  result model "$([ -s "$work/models" ] && echo there || echo -)"
  while read -r model digest bytes file <&8; do
    [ "$(had "model $model")" != there ] || continue
    copy_model || return 1
  done 8<"$work/models"
}

copy_model() {
  word=copied
  for attempt in 1 2; do
    from_source || return 1
    status=0
    ask_node_errors accept "$remote_dir" "$model" "$digest" || status=$?
    [ "$status" != 0 ] || break
    # What was there of it before was not this file's beginning: once more, from the start.
    [ "$status" = 3 ] && [ "$attempt" = 1 ] || { failed "$model came with other bytes"; return 1; }
    progress "$model came with other bytes; once more"
  done
  result model "$word"
}

# Bytes of the model that have come.
begin() {
  if [ -n "$dry" ]; then
    ask_node begin "$remote_dir" "$model" "$digest" "$bytes"
    have=0
  else
    have=$(ask_node_errors begin "$remote_dir" "$model" "$digest" "$bytes") || { failed "$model can't be sent"; return 1; }
    is_number "${have%?????????}0" 0 999999999 || { failed "$model can't be sent"; return 1; }
  fi
}

from_source() {
  begin || return 1
  if [ -n "$chain" ] && [ "$have" -lt "$bytes" ]; then
    if from_node_before; then return 0; fi
    begin || return 1
  fi
  tries=0
  part=$remote_dir/models/$model.$(printf '%.16s' "$digest").part
  while [ "$have" -lt "$bytes" ]; do
    if [ "$have" = 0 ]; then
      progress "$model: sending $(amount "$bytes")"
    else
      word=resumed
      progress "$model: going on at $(amount "$have") of $(amount "$bytes")"
    fi
    if [ -n "$dry" ]; then
      input=" <$file"
      on_node "$copy_options" "cat >>$part"
      return 0
    fi
    # A pipe with a name: so ssh is this shell's own child, which a signal reaches.
    pipe=$work/$number.pipe
    rm -f "$pipe"
    mkfifo "$pipe"
    tail -c "+$((have + 1))" "$file" >"$pipe" 2>/dev/null &
    if ! errors on_node "$copy_options" "cat >>$part" <"$pipe"; then
      tries=$((tries + 1))
      [ "$tries" -lt 3 ] || { failed "$model broke off"; return 1; }
      progress "$model: the connection broke off"
      sleep 2
    fi
    before=$have
    begin || return 1
    [ "$have" -gt "$before" ] || [ "$tries" -gt 0 ] || { failed "$model: nothing came"; return 1; }
  done
}

# Lets the node before this one in the file, of those that are still well, send the model; false where it could not.
from_node_before() {
  if [ -n "$dry" ]; then
    [ "$number" -gt 1 ] || return 1
    ask_node authorize "$remote_dir" "$model" "$digest" ssh-ed25519 PUBLIC-KEY "$mark"
    (
      node_fields $((number - 1))
      on_node "-o ForwardAgent=$work/agent $ssh_options" sh -s -- pass_on "$remote_dir" "$model" "$digest" "$bytes" 0 USER HOST PORT
    )
    ask_node unauthorize "$mark"
    return 0
  fi
  source=$number
  while :; do
    source=$((source - 1))
    [ "$source" -ge 1 ] || return 1
    [ ! -e "$work/$source.error" ] && [ -e "$work/$source.has" ] && break
  done
  # Where this machine's ssh goes, whatever names its configuration has for it; and who the node says it is.
  # shellcheck disable=SC2046,SC2086 # options are words
  to=$(ssh $([ "$ssh_port" = - ] || echo "-p $ssh_port") $ssh_options -G "$target" |
    awk '$1 == "hostname" { host = $2 } $1 == "port" { port = $2 } $1 == "user" { user = $2 } END { print user, host, port }')
  if ! only "$flag_characters" "$(printf '%s' "$to" | tr -d ' ')"; then return 1; fi
  known=$(ask_node_errors host_keys) || known=
  [ -n "$known" ] && only 'A-Za-z0-9+/=. @
-' "$known" || { progress "$model: its ssh server does not say its keys, so it comes from here"; return 1; }
  before=$have
  : >"$work/$number.authorized"
  passed=
  # shellcheck disable=SC2046 # type and key are words
  if ask_node_errors authorize "$remote_dir" "$model" "$digest" $(cut -d ' ' -f 1-2 "$work/chain.pub") "$mark"; then
    progress "$model: from $(node_fields "$source" && say "$name")"
    { printf "known='%s'\n" "$known" && cat "$install/lib/node.sh"; } >"$work/$number.pass_on"
    # shellcheck disable=SC2086 # user, host and port are words
    if pass_on_from "$source" "$number" $to; then passed=yes; fi
  fi
  why=$(tail -n 1 "$work/$number.said" | sed 's/^error: //')
  ask_node_errors unauthorize "$mark" && rm -f "$work/$number.authorized"
  if [ -n "$passed" ]; then
    begin || return 1
    [ "$have" -ge "$bytes" ] && return 0
    why='it did not send all of it'
  fi
  progress "$model: $(node_fields "$source" && say "$name") could not pass it on ($(shown "$why")), so it comes from here"
  return 1
}

pass_on_from() { # SOURCE NUMBER USER HOST PORT
  pass_number=$2
  node_fields "$1"
  number=$pass_number
  pass_status=0
  errors on_node "-o ForwardAgent=$work/agent $ssh_options" sh -s -- pass_on "$remote_dir" "$model" "$digest" "$bytes" "$have" \
    "$3" "$4" "$5" <"$work/$2.pass_on" || pass_status=$?
  node_fields "$pass_number"
  return "$pass_status"
}

start() {
  [ "$kind" = dair ] || return 0
  # shellcheck disable=SC2086 # arguments are words
  set -- --dir "$remote_dir" --port "$port" --service "$service" ${insecure:+--insecure} -- $worker_args
  said=$(ask_node_errors start "$remote_dir" "$@") || { failed 'the worker did not start'; return 1; }
  if [ -n "$dry" ]; then say "$said"; else result service "$(shown "$said")"; fi
}

remove() {
  [ -z "$dry" ] || say "$name"
  started_at
  if [ "$kind" = dllama ]; then
    result service 'skipped: a worker of C++ Distributed-Llama'
    return 0
  fi
  if said=$(ask_node_errors remove "$remote_dir" ${keep_models:+--keep-models}); then
    if [ -n "$dry" ]; then say "$said"; else result service "$(shown "$said")"; fi
  else
    failed 'not removed'
  fi
  took
}

all_of_it() {
  if prepare && copy; then start || true; fi
  took
}

# Steps of a chain: all nodes copy at the same time, after all are prepared, and before the first one takes its file.
prepare_step() {
  prepare || true
  took
}
copy_step() { if ! has_failed; then copy || true; fi; took; }
start_step() { if ! has_failed; then start || true; fi; took; }

# Takes back what a chain has left on a node that was being copied to when this was interrupted, and ends the agent.
at_end() {
  for left in "$work"/*.authorized; do
    [ -e "$left" ] || continue
    left=${left##*/}
    (node_fields "${left%.authorized}" && ask_node unauthorize "$mark" >/dev/null 2>&1)
  done
  [ -z "${agent_pid:-}" ] || kill "$agent_pid"
}

: >"$work/models"
printf '%s' "$models" >"$work/model_files"
while IFS= read -r file; do
  [ -n "$dry" ] || say "${file##*/}: $(amount "$(wc -c <"$file")"), looking at its SHA-256"
  digest=$(recorded_sha256 "$file")
  say "${file##*/} $digest $(wc -c <"$file" | tr -d ' ') $file" >>"$work/models"
done <"$work/model_files"
key_digest=
[ -z "$key" ] || key_digest=$(sha256 "$key")

if [ -n "$uninstall" ]; then
  for_each_node remove "$parallel"
elif [ -n "$chain" ]; then
  mark=dair-deploy-$$-$(date +%s)
  if [ -z "$dry" ]; then
    for tool in ssh-agent ssh-add ssh-keygen; do has "$tool" || fail "--chain needs $tool: install openssh-client"; done
    ssh-keygen -q -t ed25519 -N '' -C "$mark" -f "$work/chain" </dev/null
    agent_pid=$(ssh-agent -s -a "$work/agent" | sed -n 's/^SSH_AGENT_PID=\([0-9]*\);.*/\1/p')
    SSH_AUTH_SOCK=$work/agent ssh-add -q "$work/chain" </dev/null || fail "the agent of the chain takes no key"
    rm -f "$work/chain"
    # ssh forwards no agent where the user has none himself. Then his keys are in files, and this one stands in, whose
    # key is not to be tried: it would let this machine do no more than nodes may.
    status=0
    ssh-add -l >/dev/null 2>&1 || status=$?
    if [ "$status" = 2 ]; then
      SSH_AUTH_SOCK=$work/agent
      export SSH_AUTH_SOCK
      ssh_options="-o IdentitiesOnly=yes $ssh_options"
      copy_options="-o IdentitiesOnly=yes $copy_options"
    fi
  fi
  for_each_node prepare_step "$parallel"
  for_each_node copy_step "$n_nodes"
  for_each_node start_step "$parallel"
else
  for_each_node all_of_it "$parallel"
fi
[ -z "$dry" ] || exit 0

# The table, and how many have failed.
n_failed=0
k=1
{
  if [ -n "$uninstall" ]; then printf 'NODE\tWORKER\tSECONDS\tERROR\n'; else printf 'NODE\tBUNDLE\tMODEL\tSERVICE\tSECONDS\tERROR\n'; fi
  while [ "$k" -le "$n_nodes" ]; do
    node_fields "$k"
    printf %s "$name"
    fields='bundle model service seconds'
    [ -z "$uninstall" ] || fields='service seconds'
    for field in $fields; do
      # A step that was not reached has said nothing.
      printf '\t%s' "$(cat "$work/$k.$field" 2>/dev/null || echo -)"
    done
    if [ -e "$work/$k.error" ]; then
      n_failed=$((n_failed + 1))
      printf '\t%s' "$(cat "$work/$k.error")"
    fi
    echo
    k=$((k + 1))
  done
} >"$work/table"
echo
print_table <"$work/table"
[ "$n_failed" = 0 ] || fail "$n_failed of $n_nodes nodes failed; the others are done, and a second run goes on with these"
