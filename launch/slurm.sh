#!/usr/bin/env bash
# Train dfim on GPU nodes under SLURM: submit, look, read logs, cancel. The job saves before its time
# limit and at a preemption, goes back into the queue, and continues. launch/README.md walks through.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: launch/slurm.sh COMMAND [flags] [-- flags for dfim.main]

commands
  submit   write the batch script and give it to sbatch
  status   your jobs: state, time used, times requeued, nodes or why it waits
  logs     print the log of a job (--follow to keep printing)
  cancel   end a job; with --save it writes a checkpoint first, and is not requeued

flags (also --flag=value)         environment       needed by
  --config FILE                   DFIM_CONFIG       submit, as in configs/imm_digits.py
  --workdir FOLDER                DFIM_WORKDIR      submit; a folder that all nodes see
  --nodes N                       DFIM_NODES        submit (default: 1)
  --gpus [TYPE:]N                 DFIM_GPUS         submit, GPUs of each node (default: 1)
  --cpus N                        DFIM_CPUS         submit, cores of each GPU (default: the cluster's)
  --mem SIZE                      DFIM_MEM          submit, of each node, as in 64G (the cluster's)
  --time LIMIT                    DFIM_TIME         submit, as in 8:00:00 (the partition's)
  --notice SECONDS                DFIM_NOTICE       submit, to save before the limit (default: 120)
  --partition NAME                DFIM_PARTITION    submit (the cluster's)
  --account NAME                  DFIM_ACCOUNT      submit (yours)
  --qos NAME                      DFIM_QOS          submit (yours)
  --name NAME                     DFIM_NAME         submit (default: the last part of the workdir)
  --python FILE                   DFIM_PYTHON       submit (default: .venv/bin/python)
  --logdir FOLDER                 DFIM_LOGDIR       submit, logs (default: runs/slurm)
  --job ID                        DFIM_JOB          cancel; status (all), logs (the newest log)
  --save                                            cancel
  --follow                                          logs
  --dry-run                       DFIM_DRY_RUN=1    print every command and the script, run none
  --help

Paths are taken from the top of the repository, where the job runs. Of two jobs of one name the
second waits for the end of the first.
HELP
}

refuse() { echo "slurm.sh: $1" >&2; exit 2; }
fail() { echo "slurm.sh: $1" >&2; exit 1; }

# need VALUE VARIABLE FLAG EXAMPLE: a required value, or one line that says how to give it.
need() {
  [[ -n "$1" ]] || refuse "$2 is not set: pass $3 $4 or export $2=$4"
}

# matches FLAG VALUE REGEX FIX: a value of the right form, or one line that names the form.
matches() {
  [[ "$2" =~ ^($3)$ ]] || refuse "$1 '$2' is not $4"
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

# The only place that calls SLURM, except sbatch; under --dry-run it prints the command instead.
call() {
  if [[ "$dry_run" == 1 ]]; then
    quote_all "$@"
    echo
  else
    "$@"
  fi
}

# SLURM's ways to write a time: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.
seconds_of() {
  local days=0 rest=$1 a b c
  if [[ "$1" == *-* ]]; then days=${1%%-*} rest=${1#*-}; fi
  IFS=: read -r a b c <<< "$rest"
  if [[ "$1" == *-* || -n "$c" ]]; then
    echo $((((10#$days * 24 + 10#$a) * 60 + 10#${b:-0}) * 60 + 10#${c:-0}))
  else
    echo $((10#$a * 60 + 10#${b:-0}))
  fi
}

# The batch script. It contains the options of SLURM that it relies on; those that flags choose go on
# sbatch's command line, where they win over SBATCH_* variables.
batch() {
  local trainer
  trainer=$(quote_all "$python" -m dfim.main "--config=$config" "--workdir=$workdir" --distributed \
    ${extra[@]+"${extra[@]}"})
  cat <<TOP
#!/usr/bin/env bash
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@$notice
TOP
  cat <<'BEGIN'
# Made by launch/slurm.sh; launch/README.md explains the exit codes.
set -u

say() { printf '%(%F %T)T job %s: %s\n' -1 "$SLURM_JOB_ID" "$*"; }

# The notice comes to this shell (B:) rather than to the tasks, so that the log shows it. srun passes
# it on: to SIGUSR1 it does that for all tasks, at SIGTERM it would kill them. SIGTERM here is SLURM's
# end of the job; SLURM sends that to the tasks, too, so there is nothing to pass on.
again=0 srun=""
trap 'again=1; say "asked to save"; [[ -z "$srun" ]] || kill -USR1 "$srun" 2> /dev/null' USR1
trap 'again=1; say "SLURM ends the job"' TERM

say "starts on ${SLURM_JOB_NODELIST:-?}, requeued ${SLURM_RESTART_COUNT:-0} times so far"
BEGIN
  # JAX reads SLURM's variables and gives each task the GPU of its local number, out of all those of
  # the node: hence a task for each GPU, none of them bound to a GPU by SLURM. Whoever ends first
  # must not get the others killed while they save, whatever the cluster's defaults are; but a hang
  # after that ends, too. srun takes no --cpus-per-task from sbatch since SLURM 22.05.
  echo "srun --kill-on-bad-exit=0 --wait=600${cpus:+ --cpus-per-task=$cpus} \\"
  echo "  $trainer &"
  cat <<'WAIT'
srun=$!
# bash holds a trap back until a foreground command ends, so srun is in the background; a signal ends
# wait early, so it is repeated until it is srun that has ended.
while true; do
  again=0
  wait "$srun"
  code=$?
  [[ "$again" == 1 ]] || break
done

# 75: saved, and more to do; 143: SIGTERM, before the trainer listened. After a notice, and in the grace
# time of a preemption, the job is RUNNING and would be over for good when this script ends: it is
# requeued here. Where SLURM has ended it (preempted, cancelled, out of time), SLURM has also decided
# the next step: a second requeue, or one of a cancelled job, would be wrong.
case "$code" in
  0) say "done" ;;
  75 | 143)
    state=$(squeue --noheader --states=all --jobs="$SLURM_JOB_ID" --format=%T)
    if [[ "$state" != RUNNING ]]; then
      say "exit code $code; the job is ${state:-unknown} to SLURM: left to SLURM"
    else
      say "exit code $code: goes back into the queue"
      scontrol requeue "$SLURM_JOB_ID"
      case $? in  # 143: ended by its own request
        0 | 143) ;;
        *) say "SLURM did not requeue the job: submit the same again to go on" ;;
      esac
    fi ;;
  138) say "the notice came before the trainer listened: not requeued; give more --time" ;;
  *) say "exit code $code: not requeued" ;;
esac
exit "$code"
WAIT
}

submit() {
  local arguments id
  # %x and %j are SLURM's in --output, so a % of the folder is doubled
  arguments=(sbatch --parsable "--job-name=$name" --dependency=singleton "--nodes=$nodes"
    "--ntasks-per-node=${gpus##*:}" "--gres=gpu:$gpus" ${cpus:+"--cpus-per-task=$cpus"}
    ${mem:+"--mem=$mem"} ${time:+"--time=$time"} ${partition:+"--partition=$partition"}
    ${account:+"--account=$account"} ${qos:+"--qos=$qos"} "--chdir=$root"
    "--output=${logdir//%/%%}/%j.out")
  if [[ "$dry_run" == 1 ]]; then
    call mkdir -p "$logdir"
    echo "$(call "${arguments[@]}") <<'END_OF_BATCH_SCRIPT'"
    batch
    echo END_OF_BATCH_SCRIPT
    return
  fi
  mkdir -p "$logdir" || fail "cannot make the folder of the logs: pass another --logdir"
  id=$(batch | "${arguments[@]}") || fail "sbatch did not take the job: see its message above"
  echo "job ${id%%;*} '$name': log in $logdir/${id%%;*}.out, or launch/slurm.sh logs --follow"
}

status() {
  call squeue --user="$(id -un)" ${job:+"--jobs=$job"} \
    --Format='JobID:10 ,Name:24 ,State:11 ,TimeUsed:12 ,TimeLimit:12 ,RestartCnt:9 ,ReasonList:40'
}

logs() {
  local file log=""
  if [[ -n "$job" ]]; then
    log=$logdir/$job.out
  else
    for file in "$logdir"/*.out; do
      if [[ -e "$file" && ( -z "$log" || "$file" -nt "$log" ) ]]; then log=$file; fi
    done
    [[ -n "$log" ]] || fail "no log in $logdir: no job has begun, see launch/slurm.sh status"
  fi
  if [[ "$follow" == 1 ]]; then call tail -n 100 -F "$log"; return; fi
  [[ "$dry_run" == 1 || -e "$log" ]] || fail "no $log: not begun, see launch/slurm.sh status"
  call tail -n 100 "$log"
}

# The script asks for a requeue when the trainer has saved; SLURM then says no.
cancel() {
  if [[ "$save" == 1 ]]; then
    call scontrol update "JobId=$job" Requeue=0
    call scancel --batch --signal=USR1 "$job"
  else
    call scancel "$job"
  fi
}

check_submit() {
  local limit
  need "$config" DFIM_CONFIG --config configs/imm_digits.py
  need "$workdir" DFIM_WORKDIR --workdir /shared-disk/run-1
  [[ "$workdir" != *://* ]] || refuse "--workdir '$workdir' is a URL: give a folder of all nodes"
  [[ -f "${config%%:*}" ]] || refuse "--config '${config%%:*}' is no file in $root: give another"
  matches --nodes "$nodes" '[1-9][0-9]*' 'a number of nodes: give one such as 2'
  matches --gpus "$gpus" '([A-Za-z0-9_.-]+:)?[1-9][0-9]*' 'a number of GPUs: give 4 or h100:4'
  matches --cpus "$cpus" '([1-9][0-9]*)?' 'a number of cores: give one such as 8'
  matches --mem "$mem" '([0-9]+[KMGT]?)?' 'an amount of memory: give one such as 64G'
  matches --notice "$notice" '[1-9][0-9]{0,4}' 'a number of seconds: give one such as 120'
  [[ "$notice" -le 65535 ]] || refuse "--notice '$notice' is too long: give at most 65535"
  matches --time "$time" '(([0-9]+-)?[0-9]+(:[0-9]+){0,2}|UNLIMITED)?' \
    'a time limit: give one such as 8:00:00 or 2-00:00:00'
  limit=0  # none, as in SLURM
  [[ "$time" != *[0-9] ]] || limit=$(seconds_of "$time")
  if [[ "$limit" -gt 0 && "$limit" -le $((notice + 60)) ]]; then
    refuse "--time '$time' leaves no time to train: SLURM gives notice up to 60 s earlier than \
--notice=$notice before the end, so give more than $((notice + 60)) s"
  fi
  if [[ -z "$name" ]]; then name=${workdir%/}; name=${name##*/}; fi
  [[ "$dry_run" == 1 ]] || command -v "$python" > /dev/null \
    || refuse "--python '$python' cannot be run in $root: pass another, or make setup there"
}

check() {
  local tool
  case "$command" in submit) check_submit ;;
    *) [[ ${#extra[@]} == 0 ]] || refuse "'$command' takes nothing after --: only submit does" ;;
  esac
  case " ${extra[*]-} " in *" --dry-run "* | *" --save "* | *" --follow "*)
    refuse "arguments after -- are dfim.main's: put --dry-run, --save and --follow before it" ;;
  esac
  case "$command" in cancel) need "$job" DFIM_JOB --job 12345 ;; esac
  matches --job "$job" '[0-9]*' 'the number of a job: launch/slurm.sh status shows them'
  [[ "$save" == 0 || "$command" == cancel ]] || refuse "--save is for cancel: leave it out"
  [[ "$follow" == 0 || "$command" == logs ]] || refuse "--follow is for logs: leave it out"
  case "$command" in
    submit) tool="sbatch" ;; status) tool="squeue" ;; logs) tool="tail" ;; cancel) tool="scancel" ;;
  esac
  [[ "$dry_run" == 1 ]] || command -v "$tool" > /dev/null \
    || fail "$tool is not on the PATH: call this on a login node of the cluster, or with --dry-run"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
config=${DFIM_CONFIG:-} workdir=${DFIM_WORKDIR:-} nodes=${DFIM_NODES:-1} gpus=${DFIM_GPUS:-1}
cpus=${DFIM_CPUS:-} mem=${DFIM_MEM:-} time=${DFIM_TIME:-} notice=${DFIM_NOTICE:-120}
partition=${DFIM_PARTITION:-} account=${DFIM_ACCOUNT:-} qos=${DFIM_QOS:-} name=${DFIM_NAME:-}
python=${DFIM_PYTHON:-.venv/bin/python} logdir=${DFIM_LOGDIR:-runs/slurm} job=${DFIM_JOB:-}
save=0 follow=0 dry_run=${DFIM_DRY_RUN:-0}
command="" extra=()

while [[ $# -gt 0 ]]; do
  flag=${1%%=*}
  case "$flag" in
    --help | -h) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    --save | --follow | --dry-run)
      [[ "$1" == "$flag" ]] || refuse "$flag takes no value, got '$1'"
      case "$flag" in --save) save=1 ;; --follow) follow=1 ;; --dry-run) dry_run=1 ;; esac ;;
    --config | --workdir | --nodes | --gpus | --cpus | --mem | --time | --notice | --partition \
      | --account | --qos | --name | --python | --logdir | --job)
      if [[ "$1" == *=* ]]; then value=${1#*=}; else value=${2:-}; shift; fi
      [[ -n "$value" && "$value" != --* ]] || refuse "$flag needs a value: see --help"
      printf -v "${flag#--}" '%s' "$value" ;;
    -*) refuse "unknown flag '$1': see --help" ;;
    submit | status | logs | cancel)
      [[ -z "$command" ]] || refuse "two commands, '$command' and '$1': give one"
      command=$1 ;;
    *) refuse "unknown command '$1': submit, status, logs or cancel" ;;
  esac
  shift
done

[[ -n "$command" ]] || refuse "no command: submit, status, logs or cancel"
[[ "$logdir" == /* ]] || logdir=$root/$logdir
check
"$command"
