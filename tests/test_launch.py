"""launch/tpu.sh without a TPU and launch/slurm.sh without SLURM, executed against stand-ins.

The stand-in for gcloud runs `--command=...` in a local shell with a scratch HOME, so the workers'
commands are executed here, with a small program in the place of dfim.main. So is the batch script
that sbatch gets, with stand-ins for srun, squeue and scontrol.
"""

import functools
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "launch" / "tpu.sh"
SLURM = ROOT / "launch" / "slurm.sh"
COMMANDS = ["create", "wait", "setup", "run", "logs", "resume", "delete"]
FLAGS = "--project=a-project --zone=us-central1-a --name=pod --type=v5litepod-8".split()
FLAGS += ["--repo=https://example.com/dfim.git", "--config=configs/imm_digits.py"]
FLAGS += ["--workdir=gs://bucket/my run's dir"]
JOB = ["--config=configs/imm_digits.py", "--workdir=/shared/my run's dir"]

LOUD = "#!/bin/bash\necho 'gcloud was run' >&2\ntouch \"$HOME/gcloud-was-run\"\nexit 99\n"
# answers `describe` from a file of one state a line, runs `--command`, notes every call
WORKER = r"""#!/bin/bash
echo "$*" >> "$HOME/calls"
for word in "$@"; do
  case "$word" in
    describe)
      [[ "$*" == *tpu-vm* ]] && { echo READY; exit 0; }
      line=$(head -n 1 "$HOME/states"); sed -i 1d "$HOME/states"
      [[ "$line" == NONE ]] && exit 1
      echo "$line" ;;
    --command=*) cd "$HOME" && exec bash -c "${word#--command=}" ;;
  esac
done
"""
# mounting is a file in the folder; the second call for a mounted one fails, as gcsfuse's does
GCSFUSE = r"""#!/bin/bash
printf '%s\n' "$@" >> "$HOME/mounts"
[[ -e "$HOME/no-bucket" ]] && { echo "Unknown bucket" >&2; exit 1; }
set -C; : > "${@: -1}/mounted"
"""
MOUNTPOINT = """#!/bin/bash
[[ "$1" == -q && -e "$2/mounted" ]]
"""
MOUNT_FLAGS = ["--implicit-dirs", "--rename-dir-limit=200000"]
MOUNT_FLAGS += ["--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"]
# notes what root is asked to do and write; the installation brings gcsfuse
SUDO = r"""#!/bin/bash
echo "$*" >> "$HOME/root"
case "$*" in
  tee*) cat >> "$HOME/root" ;;
  *install*) cp "$HOME/gcsfuse" "$HOME/bin/gcsfuse" ;;
esac
"""
TRAINER = """#!/bin/bash
printf '%s\\n' "$@" > "$HOME/arguments"
echo "step 1"
[[ -e "$HOME/broken" ]] && { echo "config: no such key" >&2; exit 2; }
trap 'echo saved; [[ -e "$HOME/hangs" ]] || exit 75' TERM
while true; do sleep .1; done
"""
# a python3 whose pip installs nothing and whose uv makes an environment of stand-ins
PYTHON = r"""#!/bin/bash
case "$*" in
  "-m pip install -q --user uv") echo uv >> "$HOME/installs" ;;
  "-m uv venv -q --seed --python "*)
    echo "venv $7" >> "$HOME/installs"
    mkdir -p "$8/bin"
    printf '#!/bin/bash\necho "${@:4}" >> "$HOME/installs"\n' > "$8/bin/pip"
    printf '#!/bin/bash\n' > "$8/bin/python"
    chmod +x "$8"/bin/* ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def program(home, name, text):
  path = home / "bin" / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def environment(home, **variables):
  return {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home), **variables}


def bash(home, script, *arguments, **variables):
  options = dict(cwd=home, capture_output=True, text=True, timeout=60)
  command = ["bash", str(script), *arguments]
  return subprocess.run(command, env=environment(home, **variables), **options)


@pytest.fixture
def call(tmp_path):
  """call(*arguments, gcloud=..., **variables) -> the finished process; HOME is tmp_path."""

  def call(*arguments, gcloud=LOUD, **variables):
    program(tmp_path, "gcloud", gcloud)
    return bash(tmp_path, SCRIPT, *arguments, **variables)

  return call


@pytest.fixture
def worker(tmp_path):
  """A scratch HOME in which dfim looks installed; whatever was started there is ended."""
  if not os.path.isdir("/proc/self"):
    pytest.skip("no /proc here: workers are Linux machines")
  program(tmp_path / "dfim" / ".venv", "python", TRAINER)
  program(tmp_path, "gcsfuse", GCSFUSE)
  program(tmp_path, "mountpoint", MOUNTPOINT)
  program(tmp_path, "fusermount", "#!/bin/bash\nexit 1\n")
  yield tmp_path
  pid = tmp_path / "dfim.pid"
  if pid.exists():
    try:
      os.killpg(int(pid.read_text()), signal.SIGKILL)
    except ProcessLookupError:
      pass


def printed(process):
  assert process.returncode == 0, process.stderr
  lines = [line for line in process.stdout.splitlines() if not line.startswith("#")]
  return [shlex.split(line) for line in lines]


def words(text, **lists):
  """The words of `text`, with the names of lists replaced by these."""
  return [word for part in text.split() for word in lists.get(part, [part])]


def refused(process):
  assert process.returncode == 2, (process.returncode, process.stderr)
  assert process.stdout == "" and len(process.stderr.splitlines()) == 1
  return process.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_dry_run_prints_and_runs_nothing(call, tmp_path, command):
  commands = printed(call(command, *FLAGS, "--dry-run"))
  assert not (tmp_path / "gcloud-was-run").exists()
  for argv in commands:
    assert argv[:3] == ["gcloud", "compute", "tpus"] and argv[5] == "pod"
    assert "--project=a-project" in argv and "--zone=us-central1-a" in argv


@pytest.mark.parametrize(
  "arguments, verb, last",
  [
    ("create --spot", "queued-resources create", "--spot"),
    ("create --runtime=newest", "queued-resources create", "--runtime-version=newest"),
    ("wait", "queued-resources describe", "--format=value(state.state)"),
    ("delete", "queued-resources delete", "--quiet"),
    ("logs --worker all --follow", "tpu-vm ssh", "--command=tail -n 100 -F dfim.log"),
  ],
)
def test_one_command_of_gcloud(call, arguments, verb, last):
  (argv,) = printed(call(*arguments.split(), *FLAGS, "--dry-run"))
  assert " ".join(argv[3:5]) == verb and argv[-1] == last
  if verb.endswith("create"):
    assert argv[8:10] == ["--node-id=pod", "--accelerator-type=v5litepod-8"]
  if verb == "tpu-vm ssh":
    assert "--worker=all" in argv


def test_flags_come_before_the_environment(call):
  variables = dict(DFIM_PROJECT="p", DFIM_ZONE="z", DFIM_NAME="n", DFIM_TYPE="v6e-8", DFIM_SPOT="1")
  (argv,) = printed(call("create", "--zone=other", DFIM_DRY_RUN="1", **variables))
  assert argv[5:8] == ["n", "--project=p", "--zone=other"]
  assert argv[-2:] == ["--runtime-version=v2-alpha-tpuv6e", "--spot"]


@pytest.mark.parametrize(
  "arguments, named",
  [
    ("", "no command"),
    ("launch", "launch"),
    ("create --spot=yes", "--spot"),
    ("create FLAGS --type=v99-8", "DFIM_RUNTIME"),
    ("run FLAGS --workdir=gs:///x", "gs://"),
    ("logs FLAGS -- --config.steps=1", "--"),
    ("run FLAGS -- --config.seed=1 --dry-run", "--dry-run"),
  ],
)
def test_bad_usage_is_refused(call, tmp_path, arguments, named):
  assert named in refused(call(*words(arguments, FLAGS=FLAGS)))
  assert not (tmp_path / "gcloud-was-run").exists()


@pytest.mark.parametrize("command, flag", [("create", "project"), ("run", "config")])
def test_a_missing_value_is_named(call, command, flag):
  given = [word for word in FLAGS if not word.startswith(f"--{flag}=")]
  for dry in ([], ["--dry-run"]):
    assert f"DFIM_{flag.upper()}" in refused(call(command, *given, *dry))
  assert "DFIM_GRACE" in refused(call("wait", *FLAGS, DFIM_GRACE="soon"))


@pytest.mark.parametrize("pasted", [True, False])
def test_run_passes_every_argument_whole(call, worker, pasted):
  extra = ["--config.batch_size=64", "--note=a b; $HOME"]
  run = functools.partial(call, "run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1")
  process = run(*(["--dry-run"] if pasted else []), "--", *extra)
  process = bash(worker, "-c", process.stdout) if pasted else process
  assert process.returncode == 0, process.stderr
  flags = ["--config=configs/imm_digits.py", f"--workdir={worker}/gs/bucket/my run's dir"]
  arguments = ["-m", "dfim.main", *flags, "--distributed", *extra]
  assert (worker / "arguments").read_text().splitlines() == arguments
  assert "tpu-vm ssh pod" in (worker / "calls").read_text()
  assert "step 1" in call("logs", *FLAGS, gcloud=WORKER).stdout
  again = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="0")
  assert again.returncode == 1 and "already training" in again.stderr


def test_a_trainer_that_leaves_is_reported_and_without_its_bucket_none_starts(call, worker):
  (worker / "broken").touch()
  process = call("run", *FLAGS, "--workdir=gs://other", gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 1 and "config: no such key" in process.stderr
  assert f"--workdir={worker}/gs/other" in (worker / "arguments").read_text()
  (worker / "arguments").unlink()
  (worker / "no-bucket").touch()
  process = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 1 and "Unknown bucket" in process.stderr
  assert not (worker / "arguments").exists()


def test_wait_ends_when_active_or_lost(call, worker):
  seen = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
  (worker / "states").write_text("\n".join(seen[:1] + seen) + "\n")
  process = call("wait", *FLAGS, gcloud=WORKER, DFIM_POLL="0")
  assert process.returncode == 0
  assert [line.split()[-1] for line in process.stdout.splitlines()] == seen
  for lost in ("SUSPENDED", "NONE"):
    (worker / "states").write_text(f"{lost}\n")
    assert call("wait", *FLAGS, gcloud=WORKER, DFIM_POLL="0").returncode == 1


def git(folder, *arguments):
  who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
  subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not on the PATH")
def test_setup_installs_the_newest_commit_and_may_be_repeated(call, worker):
  shutil.rmtree(worker / "dfim")
  program(worker, "python3", PYTHON)
  program(worker, "sudo", LOUD)
  source = worker / "its source"
  source.mkdir()
  git(source, "init", "-q", "-b", "main")
  for version in ["one", "two"]:
    (source / "version").write_text(version)
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", version)
    process = call("setup", *FLAGS, f"--repo={source}", gcloud=WORKER)
    assert process.returncode == 0, process.stderr
    assert (worker / "dfim" / "version").read_text() == version
  installs = (worker / "installs").read_text().splitlines()
  assert installs == ["uv", "venv 3.12", ".[tfds] jax[tpu]", "uv", ".[tfds] jax[tpu]"]
  missing = call("setup", *FLAGS, f"--repo={worker / 'nowhere'}", gcloud=WORKER)
  assert missing.returncode != 0
  assert (worker / "installs").read_text().splitlines() == installs


@pytest.mark.skipif(bool(shutil.which("gcsfuse")), reason="gcsfuse is on the PATH")
@pytest.mark.parametrize("reachable", [True, False])
def test_setup_installs_gcsfuse_once(call, worker, reachable):
  source = worker / "dfim"
  git(source, "init", "-q", "-b", "main")
  git(source, "commit", "-q", "--allow-empty", "-m", "one")
  (worker / "bin" / "gcsfuse").rename(worker / "gcsfuse")
  program(worker, "python3", PYTHON)
  program(worker, "sudo", SUDO)
  program(worker, "lsb_release", "#!/bin/bash\necho jammy\n")
  program(worker, "curl", "#!/bin/bash\necho a key\n" if reachable else "#!/bin/bash\nexit 22\n")
  for name in ("pip", "python"):
    program(source / ".venv", name, "#!/bin/bash\n")
  for _ in range(2):
    process = call("setup", *FLAGS, f"--repo={source}", gcloud=WORKER)
    assert (process.returncode == 0) == reachable, process.stderr
  key = "/usr/share/keyrings/cloud.google.asc"
  written = (worker / "root").read_text().splitlines()
  if not reachable:
    assert written == [f"tee {key}"] * 2
    return
  line = f"deb [signed-by={key}] https://packages.cloud.google.com/apt gcsfuse-jammy main"
  listed = ["tee /etc/apt/sources.list.d/gcsfuse.list", line, "apt-get -q update"]
  assert written[:-1] == [f"tee {key}", "a key", *listed]
  assert written[-1].endswith(" install gcsfuse")


def without_setup(gcloud):
  """The same stand-in, deaf to the installation (it would need a network)."""
  return gcloud.replace("--command=*)", "--command=*'pip install'*) exit 0 ;;\n    --command=*)")


@pytest.mark.parametrize("state, renewed", [("SUSPENDED", "delete create"), ("NONE", "create")])
def test_resume_renews_what_is_gone(call, worker, state, renewed):
  (worker / "states").write_text(f"{state}\nACTIVE\n")
  process = call("resume", *FLAGS, gcloud=without_setup(WORKER), DFIM_POLL="0", DFIM_GRACE="1")
  assert process.returncode == 0, process.stderr
  calls = re.findall(r"queued-resources (\w+)", (worker / "calls").read_text())
  assert [verb for verb in calls if verb != "describe"] == renewed.split()
  assert (worker / "arguments").exists()


@pytest.mark.parametrize("leaves", [True, False])
def test_resume_gives_a_running_trainer_time_to_save(call, worker, leaves):
  if not leaves:
    (worker / "hangs").touch()
  assert call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1").returncode == 0
  first = (worker / "dfim.pid").read_text()
  mounted = [*MOUNT_FLAGS, "bucket", f"{worker}/gs/bucket"]
  assert (worker / "mounts").read_text().splitlines() == mounted
  (worker / "states").write_text("ACTIVE\nACTIVE\n")
  seconds = dict(DFIM_POLL="0", DFIM_GRACE="1", DFIM_PATIENCE="60" if leaves else "2")
  process = call("resume", *FLAGS, gcloud=without_setup(WORKER), **seconds)
  assert process.returncode == 0, process.stderr
  assert (worker / "dfim.pid").read_text() != first
  assert (worker / "mounts").read_text().splitlines() == mounted, "it is mounted once"
  time.sleep(0.2)
  assert (worker / "dfim.log").read_text().splitlines() == ["step 1", "saved", "step 1"]


NOTE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$HOME/calls"
"""
SBATCH = """#!/bin/bash
printf '%s\\n' "$@" > "$HOME/sbatch-arguments"
cat > "$HOME/batch"
[[ -e "$HOME/no-such-partition" ]] && { echo "sbatch: error: no" >&2; exit 1; }
echo "4711;cluster"
"""
# as the real one: passes SIGUSR1 on, answers SIGTERM by killing
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$HOME/srun-arguments"
while [[ "$1" == --* ]]; do shift; done
trap 'kill -USR1 $!' USR1
trap 'kill -KILL $!' TERM
"$@" &
while true; do wait $!; code=$?; kill -0 $! 2> /dev/null || break; done
wait $!
"""
SQUEUE = NOTE + 'cat "$HOME/state"\n'
SCONTROL = NOTE + '[[ ! -e "$HOME/requeue" ]] || exit "$(cat "$HOME/requeue")"\n'
# ends at once with the code that is asked for, or trains until it is told to save
TASK = """#!/bin/bash
printf '%s\\n' "$@" > "$HOME/arguments"
trap 'sleep .5; echo saved; exit 75' USR1
echo $$ > "$HOME/task.pid"
[[ -e "$HOME/code" ]] && exit "$(cat "$HOME/code")"
for _ in {1..600}; do sleep .05; done
"""


@pytest.fixture
def login(tmp_path):
  """A scratch HOME on a login node: `sbatch` keeps the script, all that is called is noted."""
  tools = dict(sbatch=SBATCH, srun=SRUN, squeue=SQUEUE, scontrol=SCONTROL, scancel=NOTE, task=TASK)
  for name, text in tools.items():
    program(tmp_path, name, text)
  (tmp_path / "state").write_text("RUNNING\n")
  return tmp_path


def slurm(login, *arguments, **variables):
  where = dict(DFIM_PYTHON=str(login / "bin" / "task"), DFIM_LOGDIR=str(login / "logs"))
  return bash(login, SLURM, *arguments, **where | variables)


def start_batch(login, *extra, **variables):
  """Submits, and starts what sbatch was given, as SLURM would on the first node."""
  process = slurm(login, "submit", *JOB, "--", *extra)
  assert process.returncode == 0, process.stderr
  env = environment(login, SLURM_JOB_ID="4711", **variables)
  pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  return subprocess.Popen(["bash", str(login / "batch")], env=env, cwd=login, **pipe)


def wait_for(path):
  for _ in range(200):
    if path.exists() and path.read_text():
      return path.read_text()
    time.sleep(0.05)
  raise AssertionError(f"no {path}")


def requeues(login):
  calls = login / "calls"
  lines = calls.read_text().splitlines() if calls.exists() else []
  return [line for line in lines if line.startswith("scontrol")]


def nothing_ran(login):
  return not any((login / made).exists() for made in ["calls", "sbatch-arguments", "batch", "logs"])


@pytest.mark.parametrize(
  "arguments, first", [(["submit", *JOB], "mkdir"), (["cancel", "--job=12", "--save"], "scontrol")]
)
def test_slurm_dry_run_runs_nothing(login, arguments, first):
  for variables, dry in [({}, ["--dry-run"]), (dict(DFIM_DRY_RUN="1"), [])]:
    process = slurm(login, *arguments, *dry, **variables)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[0] == first
    assert nothing_ran(login)


@pytest.mark.parametrize("by_flags", [True, False])
def test_submit_asks_for_a_task_a_gpu(login, by_flags):
  given = dict(nodes="2", gpus="h100:4", cpus="8", mem="64G", time="1-12", partition="p q")
  given |= dict(account="a", qos="low", notice="300")
  flags = [f"--{name}={value}" for name, value in given.items()] if by_flags else ["--qos=low"]
  variables = {f"DFIM_{name.upper()}": value for name, value in given.items()} | dict(DFIM_QOS="x")
  process = slurm(login, "submit", *JOB, *flags, **({} if by_flags else variables))
  assert process.returncode == 0, process.stderr
  assert f"{login}/logs/4711.out" in process.stdout
  assert (login / "sbatch-arguments").read_text().splitlines() == [
    *("--parsable", "--job-name=my run's dir", "--dependency=singleton"),
    *("--nodes=2", "--ntasks-per-node=4", "--gres=gpu:h100:4", "--cpus-per-task=8"),
    *("--mem=64G", "--time=1-12", "--partition=p q", "--account=a", "--qos=low"),
    *(f"--chdir={ROOT}", f"--output={login}/logs/%j.out"),
  ]
  script = (login / "batch").read_text()
  assert script.startswith("#!/usr/bin/env bash\n#SBATCH --requeue\n#SBATCH --open-mode=append\n")
  assert "\n#SBATCH --signal=B:USR1@300\n" in script
  assert "srun --kill-on-bad-exit=0 --wait=600 --cpus-per-task=8 " in script


def test_the_batch_script_passes_every_argument_whole(login):
  (login / "code").write_text("0")
  extra = ["--config.batch_size=64", "--note=a b; $HOME 'it' \"is\""]
  job = start_batch(login, *extra)
  assert job.wait(60) == 0, job.stdout.read()
  trainer = ["-m", "dfim.main", *JOB, "--distributed", *extra]
  assert (login / "arguments").read_text().splitlines() == trainer
  srun = ["--kill-on-bad-exit=0", "--wait=600", str(login / "bin" / "task"), *trainer]
  assert (login / "srun-arguments").read_text().splitlines() == srun


@pytest.mark.parametrize(
  "code, state, requeued",
  [
    (75, "RUNNING", True),
    (143, "RUNNING", True),
    (75, "COMPLETING", False),  # preempted or cancelled: SLURM has decided
    (0, "RUNNING", False),
    (138, "RUNNING", False),
  ],
)
def test_only_a_saved_job_that_still_runs_is_requeued(login, code, state, requeued):
  (login / "code").write_text(str(code))
  (login / "state").write_text(state)
  job = start_batch(login)
  job.communicate(timeout=60)
  assert job.returncode == code
  assert requeues(login) == (["scontrol requeue 4711"] if requeued else [])


@pytest.mark.parametrize("answer, said", [(1, True), (143, False)])
def test_a_requeue_that_slurm_refuses_is_said(login, answer, said):
  (login / "code").write_text("75")
  (login / "requeue").write_text(str(answer))  # 143: the end of the job was faster
  job = start_batch(login)
  assert ("again" in job.communicate(timeout=60)[0]) == said
  assert job.returncode == 75 and len(requeues(login)) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_the_notice_reaches_the_trainer_which_gets_time_to_save(login, times):
  job = start_batch(login, SLURM_RESTART_COUNT="2")
  wait_for(login / "task.pid")
  for _ in range(times):
    job.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
  output = job.communicate(timeout=60)[0]
  assert job.returncode == 75, output
  assert output.count("\nsaved\n") == 1
  assert requeues(login) == ["scontrol requeue 4711"]


def test_the_end_of_the_job_is_left_to_slurm(login):
  (login / "state").write_text("COMPLETING\n")
  job = start_batch(login)
  task = int(wait_for(login / "task.pid"))
  job.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  assert job.poll() is None  # it waits for the trainer, which SLURM tells
  os.kill(task, signal.SIGUSR1)
  output = job.communicate(timeout=60)[0]
  assert job.returncode == 75 and "saved" in output
  assert requeues(login) == []


def test_what_sbatch_refuses_is_a_failure_and_only_what_was_asked_for_reaches_it(login):
  (login / "no-such-partition").touch()
  process = slurm(login, "submit", *JOB)
  assert process.returncode == 1 and process.stdout == ""
  assert "sbatch: error: no" in process.stderr
  (login / "no-such-partition").unlink()
  assert slurm(login, "submit", *JOB, "--name=n").returncode == 0
  arguments = (login / "sbatch-arguments").read_text().splitlines()
  expected = "--job-name=n --dependency=singleton --nodes=1 --ntasks-per-node=1 --gres=gpu:1"
  assert arguments[1:6] == expected.split()
  assert [argument.partition("=")[0] for argument in arguments[6:]] == ["--chdir", "--output"]
  assert "--cpus-per-task=" not in (login / "batch").read_text()


def test_status_and_cancel(login):
  assert slurm(login, "status").returncode == 0
  assert slurm(login, "status", "--job=12").returncode == 0
  assert slurm(login, "cancel", "--job=12").returncode == 0
  assert slurm(login, "cancel", "--save", DFIM_JOB="13").returncode == 0
  calls = (login / "calls").read_text().splitlines()
  who = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
  assert calls[0].startswith(f"squeue --user={who} --Format=JobID:10 ,Name:24 ")
  assert calls[1].startswith(f"squeue --user={who} --jobs=12 --Format=")
  later = ["scancel 12", "scontrol update JobId=13 Requeue=0", "scancel --batch --signal=USR1 13"]
  assert calls[2:] == later


def test_slurm_logs_are_the_newest_or_the_job_s(login):
  assert slurm(login, "logs").returncode == 1
  (login / "logs").mkdir()
  for age, number in enumerate([3, 12, 7]):
    path = login / "logs" / f"{number}.out"
    path.write_text(f"log of {number}\n")
    os.utime(path, (1e9 - age, 1e9 - age))
  assert slurm(login, "logs").stdout == "log of 3\n"
  assert slurm(login, "logs", "--job", "7").stdout == "log of 7\n"
  assert slurm(login, "logs", "--job=8").returncode == 1


@pytest.mark.parametrize(
  "arguments, named",
  [
    ("", "no command"),
    ("submit --gpu=1", "--gpu=1"),
    ("submit --nodes --save", "--nodes"),
    ("submit --workdir=/w", "DFIM_CONFIG"),
    ("cancel --job=1 --follow", "--follow"),
    ("cancel --job=mine", "--job"),
    ("status -- --config.steps=1", "--"),
    ("submit JOB -- --dry-run", "--dry-run"),
  ],
)
def test_bad_usage_of_slurm_is_refused(login, arguments, named):
  assert named in refused(slurm(login, *words(arguments, JOB=JOB)))
  assert nothing_ran(login)


WRONG = "--workdir=gs://b/x --config=configs/none.py:smoke --nodes=0 --gpus=all --gpus=h100: --save"
WRONG += " --cpus=many --mem=lots --time=8h --notice=2m --notice=0 --notice=70000 --python=none/py"


@pytest.mark.parametrize("flag", WRONG.split())
def test_a_wrong_value_is_named_before_it_is_submitted(login, flag):
  assert flag.partition("=")[0] in refused(slurm(login, "submit", *JOB, flag))
  assert nothing_ran(login)


@pytest.mark.parametrize(
  "limit, notice, fits",
  [
    *[("3", "120", False), ("3:01", "120", True), ("0", "120", True)],  # 0: no limit
    *[("08:00:00", "28740", False), ("0-08", "28739", True)],
  ],
)
def test_a_time_limit_within_the_notice_is_refused(login, limit, notice, fits):
  process = slurm(login, "submit", *JOB, f"--time={limit}", f"--notice={notice}", "--dry-run")
  assert process.returncode == 0 if fits else "--time" in refused(process), process.stderr
  assert nothing_ran(login)
