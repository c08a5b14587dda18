#!/usr/bin/env bash
# Train dfim on a Cloud TPU: ask for it, wait, install, train, read logs, resume, delete.
# Runs under bash 3.2 (macOS) and later. launch/README.md is the walk-through.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: launch/tpu.sh COMMAND [flags] [-- flags for dfim.main]

commands
  create   ask for a TPU through a queued resource
  wait     block until the TPU is ours
  setup    clone (or update) the repository, install dfim and gcsfuse on every worker
  run      mount the bucket and start training on every worker, in the background
  logs     print the log of one worker (--follow to keep printing)
  resume   after a preemption or a stop: renew the TPU if it is gone, then wait, setup, run
  delete   give the TPU back; until then it is billed

flags (also --flag=value)         environment       needed by
  --project ID                    DFIM_PROJECT      every command
  --zone ZONE                     DFIM_ZONE         every command
  --name NAME                     DFIM_NAME         every command (default: dfim)
  --type ACCELERATOR              DFIM_TYPE         create, resume, as in v5litepod-8
  --runtime VERSION               DFIM_RUNTIME      create, resume (default: follows from the type)
  --spot                          DFIM_SPOT=1       cheaper, may be taken away
  --repo URL                      DFIM_REPO         setup, resume
  --branch NAME                   DFIM_BRANCH       branch, tag or full commit (default: main)
  --config FILE                   DFIM_CONFIG       run, resume, as in configs/imm_digits.py
  --workdir gs://BUCKET/PATH      DFIM_WORKDIR      run, resume
  --worker N                      DFIM_WORKER       logs (default: 0; or all)
  --follow                                          logs
  --dry-run                       DFIM_DRY_RUN=1    print every gcloud command, run none
  --help

A workdir gs://BUCKET/PATH is the folder ~/gs/BUCKET/PATH of every worker, a gcsfuse mount.

DFIM_POLL (30) is the number of seconds between two looks while waiting; DFIM_GRACE (15) is how
long run watches the new process before it reports success; DFIM_PATIENCE (120) is how long resume
waits between SIGTERM and SIGKILL for a trainer that still runs.
HELP
}

refuse() { echo "tpu.sh: $1" >&2; exit 2; }
fail() { echo "tpu.sh: $1" >&2; exit 1; }

# need VALUE VARIABLE FLAG EXAMPLE: a required value, or one line that says how to give it.
need() {
  [[ -n "$1" ]] || refuse "$2 is not set: pass $3 $4 or export $2=$4"
}

# One word, quoted for a shell only where that is needed.
quote() {
  if [[ "$1" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
  fi
}

quote_all() {
  local word separator=""
  for word in "$@"; do
    printf '%s' "$separator"
    quote "$word"
    separator=" "
  done
}

# The only place that calls gcloud; under --dry-run it prints the command instead.
cloud() {
  if [[ "$dry_run" == 1 ]]; then
    quote_all gcloud compute tpus "$@"
    echo
  else
    gcloud compute tpus "$@"
  fi
}

on_workers() {
  cloud tpu-vm ssh "$name" --project="$project" --zone="$zone" --worker="$1" --command="$2"
}

queued() {
  local verb=$1
  shift
  cloud queued-resources "$verb" "$name" --project="$project" --zone="$zone" "$@"
}

runtime_of() {
  case "$1" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local spot_flag=()
  [[ "$spot" == 1 ]] && spot_flag=(--spot)
  queued create --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" \
    ${spot_flag[@]+"${spot_flag[@]}"}
}

state() { queued describe '--format=value(state.state)'; }
node_state() {
  cloud tpu-vm describe "$name" --project="$project" --zone="$zone" '--format=value(state)'
}

wait_active() {
  local now last=""
  if [[ "$dry_run" == 1 ]]; then
    echo "# every $poll s until it prints ACTIVE"
    state
    return
  fi
  while true; do
    now=$(state) || fail "cannot read the state of '$name': see gcloud's message above"
    [[ "$now" == "$last" ]] || echo "$(date '+%H:%M:%S') $name: ${now:-unknown}"
    last=$now
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        fail "'$name' is $now and will not become ACTIVE: launch/tpu.sh delete, then create" ;;
    esac
    sleep "$poll"
  done
}

# From Google's apt repository, as cloud.google.com/storage/docs/cloud-storage-fuse/install says.
# shellcheck disable=SC2016  # expands on the worker, not here
INSTALL_GCSFUSE='command -v gcsfuse > /dev/null || { key=/usr/share/keyrings/cloud.google.asc; '\
'apt=https://packages.cloud.google.com/apt; '\
'curl -fsSL $apt/doc/apt-key.gpg | sudo tee $key > /dev/null; '\
'echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -c -s) main" '\
'| sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null; sudo apt-get -q update; '\
'sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install gcsfuse; }'

# The workers share the bucket, so none may keep an old view of it (gcsfuse does,
# on large machines for ever); Orbax renames folders, which a flat bucket refuses without a limit.
GCSFUSE_FLAGS="--implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 \
--metadata-cache-negative-ttl-secs=0"

# TPU images carry Python 3.10; uv fetches a newer one without root.
setup() {
  local url ref
  url=$(quote "$repo")
  ref=$(quote "$branch")
  on_workers all "set -eo pipefail; test -d dfim/.git || git clone -q $url dfim; cd dfim; \
git fetch -q $url $ref; git checkout -q --detach FETCH_HEAD; git log -1 --oneline; \
python3 -m pip install -q --user uv; \
test -x .venv/bin/python || python3 -m uv venv -q --seed --python $PYTHON .venv; \
.venv/bin/pip install -q -e '.[tfds]' 'jax[tpu]'; \
$INSTALL_GCSFUSE; \
.venv/bin/python -c 'import dfim, jax; print(\"installed: dfim\", dfim.__version__, \"jax\", jax.__version__)'"
}

# dfim.pid names the trainer; a number that the system has given to another program does not count.
# shellcheck disable=SC2016  # expands on the worker, not here
ALIVE='grep -qs dfim.main "/proc/$(cat dfim.pid 2>/dev/null || echo none)/cmdline"'

run() {
  local path bucket folder flags
  path=${workdir#gs://}
  bucket=$(quote "${path%%/*}")
  folder="\"\$HOME/gs\"/$bucket"
  flags="$(quote "--config=$config") --workdir=\"\$HOME/gs\"/$(quote "$path") $(quote_all \
    --distributed ${extra[@]+"${extra[@]}"})"
  on_workers all "if $ALIVE; then echo 'already training here: nothing started' >&2; exit 1; fi; \
command -v gcsfuse > /dev/null || { echo 'no gcsfuse here: launch/tpu.sh setup' >&2; exit 1; }; \
mountpoint -q $folder || { fusermount -uz $folder 2> /dev/null; mkdir -p $folder \
&& gcsfuse $GCSFUSE_FLAGS $bucket $folder && mountpoint -q $folder; } \
|| { echo 'the bucket is not mounted: nothing started' >&2; exit 1; }; \
cd dfim || exit 1; \
nohup setsid .venv/bin/python -m dfim.main $flags >> ../dfim.log 2>&1 < /dev/null & \
echo \$! > ~/dfim.pid; cd ~; sleep $grace; \
if $ALIVE; then echo 'training started: see logs'; else tail -n 20 dfim.log >&2; exit 1; fi"
}

# At SIGTERM the trainer saves at the next step that all workers reach and ends by itself, with exit
# code 75. It is killed if it has not when the time for that is over.
stop() {
  on_workers all "if $ALIVE; then kill -TERM \$(cat dfim.pid); \
for _ in \$(seq $patience); do $ALIVE || exit 0; sleep 1; done; \
kill -KILL -- -\$(cat dfim.pid); sleep 1; fi"
}

logs() {
  local tail_flags="-n 100"
  [[ "$follow" == 1 ]] && tail_flags="-n 100 -F"
  on_workers "$worker" "tail $tail_flags dfim.log"
}

renew() {
  queued delete --force --quiet
  create
}

resume() {
  local now node
  if [[ "$dry_run" == 1 ]]; then
    echo "# the state decides which of the next commands are run"
    state
    node_state
    echo "# if the TPU is gone (SUSPENDED, FAILED, PREEMPTED)"
    renew
    echo "# if it is there and something still runs on it"
    stop
    echo "# then, in every case"
  else
    now=$(state) || now=NONE
    case "$now" in
      ACTIVE)
        node=$(node_state) || node=NONE
        echo "$name: $now, node $node"
        if [[ "$node" == READY ]]; then stop; else renew; fi ;;
      NONE) echo "$name: not there"; create ;;
      FAILED | SUSPENDING | SUSPENDED) echo "$name: $now"; renew ;;
      *) echo "$name: $now" ;;
    esac
  fi
  wait_active
  setup
  run
}

delete() {
  queued delete --force --quiet
}

check() {
  need "$project" DFIM_PROJECT --project my-project
  need "$zone" DFIM_ZONE --zone us-central1-a
  case "$command" in create | resume)
    need "$type" DFIM_TYPE --type v5litepod-8
    [[ -n "$runtime" ]] || runtime=$(runtime_of "$type")
    need "$runtime" DFIM_RUNTIME --runtime tpu-ubuntu2204-base ;;
  esac
  case "$command" in setup | resume)
    need "$repo" DFIM_REPO --repo https://example.com/dfim.git ;;
  esac
  case "$command" in run | resume)
    need "$config" DFIM_CONFIG --config configs/imm_digits.py
    need "$workdir" DFIM_WORKDIR --workdir gs://my-bucket/run-1
    [[ "$workdir" == gs://[!/]* ]] || refuse "--workdir '$workdir' must begin with gs:// and a \
bucket: a TPU's disk is lost with it, a bucket is not" ;;
  esac
  case "$command" in run | resume) ;;
    *) [[ ${#extra[@]} == 0 ]] || refuse "'$command' takes nothing after --: only run and resume do" ;;
  esac
  case " ${extra[*]-} " in *" --dry-run "* | *" --spot "* | *" --follow "*)
    refuse "arguments after -- are dfim.main's: put --dry-run, --spot and --follow before it" ;;
  esac
  [[ "$poll$grace$patience" =~ ^[0-9]+$ ]] \
    || refuse "DFIM_POLL, DFIM_GRACE and DFIM_PATIENCE are whole seconds"
  [[ "$dry_run" == 1 ]] || command -v gcloud > /dev/null \
    || fail "gcloud is not on the PATH: install the Google Cloud CLI, or look with --dry-run"
}

PYTHON=3.12
project=${DFIM_PROJECT:-} zone=${DFIM_ZONE:-} name=${DFIM_NAME:-dfim}
type=${DFIM_TYPE:-} runtime=${DFIM_RUNTIME:-} spot=${DFIM_SPOT:-0}
repo=${DFIM_REPO:-} branch=${DFIM_BRANCH:-main}
config=${DFIM_CONFIG:-} workdir=${DFIM_WORKDIR:-}
worker=${DFIM_WORKER:-0} follow=0 dry_run=${DFIM_DRY_RUN:-0}
poll=${DFIM_POLL:-30} grace=${DFIM_GRACE:-15} patience=${DFIM_PATIENCE:-120}
command="" extra=()

while [[ $# -gt 0 ]]; do
  flag=${1%%=*}
  case "$flag" in
    --help | -h) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    --spot | --follow | --dry-run)
      [[ "$1" == "$flag" ]] || refuse "$flag takes no value, got '$1'"
      case "$flag" in --spot) spot=1 ;; --follow) follow=1 ;; --dry-run) dry_run=1 ;; esac ;;
    --project | --zone | --name | --type | --runtime | --repo | --branch | --config | --workdir \
      | --worker)
      if [[ "$1" == *=* ]]; then value=${1#*=}; else value=${2:-}; shift; fi
      [[ -n "$value" && "$value" != --* ]] || refuse "$flag needs a value: see --help"
      printf -v "${flag#--}" '%s' "$value" ;;
    -*) refuse "unknown flag '$1': see --help" ;;
    create | wait | setup | run | logs | resume | delete)
      [[ -z "$command" ]] || refuse "two commands, '$command' and '$1': give one"
      command=$1 ;;
    *) refuse "unknown command '$1': create, wait, setup, run, logs, resume or delete" ;;
  esac
  shift
done

[[ -n "$command" ]] || refuse "no command: create, wait, setup, run, logs, resume or delete"
check
case "$command" in wait) wait_active ;; *) "$command" ;; esac
