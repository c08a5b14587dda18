"""launch/tpu.sh, without a TPU: what it prints, what it refuses, and what a stand-in gcloud sees.

The stand-in runs `--command=...` in a local shell with a scratch HOME, so what the workers are told
to do is executed here, with a small program in the place of dfim.main.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "launch" / "tpu.sh"
COMMANDS = ["create", "wait", "setup", "run", "logs", "resume", "delete"]
FLAGS = [
  "--project=a-project",
  "--zone=us-central1-a",
  "--name=pod",
  "--type=v5litepod-8",
  "--repo=https://example.com/dfim.git",
  "--config=configs/imm_digits.py",
  "--workdir=gs://bucket/my run's dir",
]
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
MOUNT_FLAGS = [
  "--implicit-dirs",
  "--rename-dir-limit=200000",
  "--metadata-cache-ttl-secs=0",
  "--metadata-cache-negative-ttl-secs=0",
]
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
trap 'echo saved; [[ -e "$HOME/polite" ]] && exit 0' TERM
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


@pytest.fixture
def call(tmp_path):
  """call(*arguments, gcloud=..., **variables) -> the finished process; HOME is tmp_path."""

  def call(*arguments, gcloud=LOUD, **variables):
    path = tmp_path / "bin"
    path.mkdir(exist_ok=True)
    (path / "gcloud").write_text(gcloud)
    (path / "gcloud").chmod(0o755)
    env = {"PATH": f"{path}:{os.environ['PATH']}", "HOME": str(tmp_path), **variables}
    command = ["bash", str(SCRIPT), *arguments]
    options = dict(cwd=tmp_path, capture_output=True, text=True, timeout=60)
    return subprocess.run(command, env=env, **options)

  return call


def program(home, name, text):
  path = home / "bin" / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def worker(tmp_path):
  """A scratch HOME in which dfim looks installed; whatever was started there is ended."""
  if not os.path.isdir("/proc/self"):
    pytest.skip("no /proc here: workers are Linux machines")
  python = tmp_path / "dfim" / ".venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text(TRAINER)
  python.chmod(0o755)
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
  """The printed commands, each split as a shell would."""
  assert process.returncode == 0, process.stderr
  lines = [line for line in process.stdout.splitlines() if not line.startswith("#")]
  return [shlex.split(line) for line in lines]


def remote(argv):
  return next(word for word in argv if word.startswith("--command=")).removeprefix("--command=")


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


def test_dry_run_needs_no_gcloud(tmp_path):
  for tool in ["bash", "sed", "cat"]:
    (tmp_path / tool).symlink_to(shutil.which(tool))
  env = {"PATH": str(tmp_path)}
  command = [str(tmp_path / "bash"), str(SCRIPT), "run", *FLAGS]
  dry = subprocess.run([*command, "--dry-run"], env=env, capture_output=True, text=True)
  assert len(printed(dry)) == 1
  real = subprocess.run(command, env=env, capture_output=True, text=True)
  assert real.returncode == 1 and "gcloud is not on the PATH" in real.stderr


def test_create(call):
  (argv,) = printed(call("create", *FLAGS, "--dry-run"))
  assert argv[3:5] == ["queued-resources", "create"]
  expected = [
    "--node-id=pod",
    "--accelerator-type=v5litepod-8",
    "--runtime-version=v2-alpha-tpuv5-lite",
  ]
  assert argv[8:] == expected
  (argv,) = printed(call("create", *FLAGS, "--spot", "--dry-run"))
  assert argv[8:] == [*expected, "--spot"]
  (argv,) = printed(call("create", *FLAGS, "--runtime=newest", "--dry-run"))
  assert "--runtime-version=newest" in argv


def test_wait_and_delete(call):
  (argv,) = printed(call("wait", *FLAGS, "--dry-run"))
  assert argv[3:5] == ["queued-resources", "describe"] and argv[-1] == "--format=value(state.state)"
  (argv,) = printed(call("delete", *FLAGS, "--dry-run"))
  assert argv[3:5] == ["queued-resources", "delete"] and argv[-2:] == ["--force", "--quiet"]


def test_setup(call):
  (argv,) = printed(call("setup", *FLAGS, "--branch=v0.1.0", "--dry-run"))
  assert argv[3:5] == ["tpu-vm", "ssh"] and "--worker=all" in argv
  words = shlex.split(remote(argv).replace(";", " ; "))
  install = words[words.index("install", words.index(".venv/bin/pip")) :]
  assert install[1:6] == ["-q", "-e", ".[tfds]", "jax[tpu]", ";"]
  assert "https://example.com/dfim.git" in words and "v0.1.0" in words


def test_logs(call):
  (argv,) = printed(call("logs", *FLAGS, "--dry-run"))
  assert "--worker=0" in argv and remote(argv) == "tail -n 100 dfim.log"
  (argv,) = printed(call("logs", *FLAGS, "--worker", "all", "--follow", "--dry-run"))
  assert "--worker=all" in argv and remote(argv) == "tail -n 100 -F dfim.log"


def test_resume_prints_both_roads(call):
  verbs = [" ".join(argv[3:5]) for argv in printed(call("resume", *FLAGS, "--dry-run"))]
  look = ["queued-resources describe", "tpu-vm describe"]
  renew = ["queued-resources delete", "queued-resources create"]
  go = ["tpu-vm ssh", "queued-resources describe", "tpu-vm ssh", "tpu-vm ssh"]
  assert verbs == look + renew + go


def test_environment_stands_in_for_flags(call):
  variables = dict(DFIM_PROJECT="p", DFIM_ZONE="z", DFIM_NAME="n", DFIM_TYPE="v6e-8", DFIM_SPOT="1")
  (argv,) = printed(call("create", DFIM_DRY_RUN="1", **variables))
  assert argv[5:8] == ["n", "--project=p", "--zone=z"]
  assert argv[-2:] == ["--runtime-version=v2-alpha-tpuv6e", "--spot"]
  (argv,) = printed(call("create", "--zone=other", DFIM_DRY_RUN="1", **variables))
  assert "--zone=other" in argv


@pytest.mark.parametrize(
  "command, variable",
  [(command, "project") for command in COMMANDS]
  + [("wait", "zone"), ("create", "type"), ("setup", "repo")]
  + [("run", "config"), ("run", "workdir")],
)
def test_missing_value_is_named_with_its_fix(call, tmp_path, command, variable):
  given = [flag for flag in FLAGS if not flag.startswith(f"--{variable}=")]
  for dry in ([], ["--dry-run"]):
    line = refused(call(command, *given, *dry))
    assert f"DFIM_{variable.upper()} is not set" in line and f"--{variable} " in line
  assert not (tmp_path / "gcloud-was-run").exists()


@pytest.mark.parametrize(
  "arguments, words",
  [
    (["create", "--zones=x"], "unknown flag '--zones=x'"),
    (["create", "-p"], "unknown flag '-p'"),
    (["launch"], "unknown command 'launch'"),
    (["create", "delete"], "two commands"),
    ([], "no command"),
    (["create", "--zone"], "--zone needs a value"),
    (["create", "--zone="], "--zone needs a value"),
    (["create", "--zone", "--spot"], "--zone needs a value"),
    (["create", "--spot=yes"], "--spot takes no value"),
    (["create", *FLAGS, "--type=v99-8"], "DFIM_RUNTIME is not set"),
    (["run", *FLAGS, "--workdir=runs/x"], "must begin with gs://"),
    (["run", *FLAGS, "--workdir=gs:///x"], "must begin with gs:// and a bucket"),
    (["logs", *FLAGS, "--", "--config.steps=1"], "takes nothing after --"),
  ],
)
def test_bad_usage_is_refused(call, tmp_path, arguments, words):
  assert words in refused(call(*arguments))
  assert not (tmp_path / "gcloud-was-run").exists()


def test_bad_seconds_are_refused(call):
  for variable in ["DFIM_POLL", "DFIM_GRACE", "DFIM_PATIENCE"]:
    assert "whole seconds" in refused(call("wait", *FLAGS, **{variable: "soon"}))


def test_help(call):
  process = call("--help")
  assert process.returncode == 0
  for word in [*COMMANDS, "--project", "DFIM_PROJECT", "--dry-run"]:
    assert word in process.stdout


def test_run_passes_every_argument_whole(call, worker):
  extra = ["--config.batch_size=64", "--note=a b; $HOME"]
  process = call("run", *FLAGS, "--", *extra, gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 0, process.stderr
  assert (worker / "arguments").read_text().splitlines() == [
    "-m",
    "dfim.main",
    "--config=configs/imm_digits.py",
    f"--workdir={worker}/gs/bucket/my run's dir",
    "--distributed",
    *extra,
  ]
  assert "tpu-vm ssh pod" in (worker / "calls").read_text()
  assert "step 1" in call("logs", *FLAGS, gcloud=WORKER).stdout
  again = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="0")
  assert again.returncode == 1 and "already training" in again.stderr


def test_run_mounts_once(call, worker):
  assert call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1").returncode == 0
  mounted = [*MOUNT_FLAGS, "bucket", f"{worker}/gs/bucket"]
  assert (worker / "mounts").read_text().splitlines() == mounted
  (worker / "states").write_text("ACTIVE\nACTIVE\n")
  seconds = dict(DFIM_POLL="0", DFIM_GRACE="1", DFIM_PATIENCE="1")
  process = call("resume", *FLAGS, gcloud=without_setup(WORKER), **seconds)
  assert process.returncode == 0, process.stderr
  assert (worker / "mounts").read_text().splitlines() == mounted
  assert f"--workdir={worker}/gs/bucket/my run's dir" in (worker / "arguments").read_text()


def test_run_on_a_whole_bucket(call, worker):
  process = call("run", *FLAGS, "--workdir=gs://other", gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 0, process.stderr
  assert (worker / "mounts").read_text().splitlines()[-2:] == ["other", f"{worker}/gs/other"]
  assert f"--workdir={worker}/gs/other" in (worker / "arguments").read_text().splitlines()


def test_without_its_bucket_nothing_starts(call, worker):
  (worker / "no-bucket").touch()
  process = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 1
  assert "Unknown bucket" in process.stderr and "not mounted: nothing started" in process.stderr
  assert not (worker / "arguments").exists() and not (worker / "dfim.pid").exists()


@pytest.mark.skipif(bool(shutil.which("gcsfuse")), reason="gcsfuse is on the PATH")
def test_run_without_gcsfuse_names_setup(call, worker):
  (worker / "bin" / "gcsfuse").unlink()
  process = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 1 and "launch/tpu.sh setup" in process.stderr
  assert not (worker / "arguments").exists()


def test_pasted_dry_run_does_the_same(call, worker):
  line = call("run", *FLAGS, "--dry-run", gcloud=WORKER, DFIM_GRACE="1").stdout
  env = {"PATH": f"{worker / 'bin'}:{os.environ['PATH']}", "HOME": str(worker)}
  subprocess.run(["bash", "-c", line], env=env, check=True, capture_output=True, timeout=60)
  wanted = f"--workdir={worker}/gs/bucket/my run's dir"
  assert wanted in (worker / "arguments").read_text().splitlines()
  assert (worker / "gs" / "bucket" / "mounted").exists()


def test_run_reports_a_trainer_that_leaves_at_once(call, worker):
  (worker / "broken").touch()
  process = call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1")
  assert process.returncode == 1 and "config: no such key" in process.stderr


def test_wait_ends_when_active_or_lost(call, worker):
  seen = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
  (worker / "states").write_text("\n".join(seen[:1] + seen) + "\n")
  process = call("wait", *FLAGS, gcloud=WORKER, DFIM_POLL="0")
  assert process.returncode == 0
  assert [line.split()[-1] for line in process.stdout.splitlines()] == seen
  for lost, words in [("SUSPENDED", "will not become ACTIVE"), ("NONE", "cannot read the state")]:
    (worker / "states").write_text(f"{lost}\n")
    process = call("wait", *FLAGS, gcloud=WORKER, DFIM_POLL="0")
    assert process.returncode == 1 and words in process.stderr


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
  (source / ".venv" / "bin" / "pip").write_text("#!/bin/bash\n")
  (source / ".venv" / "bin" / "pip").chmod(0o755)
  (source / ".venv" / "bin" / "python").write_text("#!/bin/bash\n")
  for _ in range(2):
    process = call("setup", *FLAGS, f"--repo={source}", gcloud=WORKER)
    assert (process.returncode == 0) == reachable, process.stderr
  key = "/usr/share/keyrings/cloud.google.asc"
  written = (worker / "root").read_text().splitlines()
  if not reachable:
    assert written == [f"tee {key}"] * 2
    return
  install, update = written.pop(), written.pop()
  assert written == [
    f"tee {key}",
    "a key",
    "tee /etc/apt/sources.list.d/gcsfuse.list",
    f"deb [signed-by={key}] https://packages.cloud.google.com/apt gcsfuse-jammy main",
  ]
  assert update == "apt-get -q update" and install.endswith(" install gcsfuse")


def without_setup(gcloud):
  """The same stand-in, deaf to the installation (it would need a network)."""
  return gcloud.replace("--command=*)", "--command=*'pip install'*) exit 0 ;;\n    --command=*)")


@pytest.mark.parametrize(
  "state, renewed",
  [("SUSPENDED", ["delete", "create"]), ("NONE", ["create"]), ("PROVISIONING", [])],
)
def test_resume_renews_what_is_gone(call, worker, state, renewed):
  (worker / "states").write_text(f"{state}\nACTIVE\n")
  process = call("resume", *FLAGS, gcloud=without_setup(WORKER), DFIM_POLL="0", DFIM_GRACE="1")
  assert process.returncode == 0, process.stderr
  calls = re.findall(r"queued-resources (\w+)", (worker / "calls").read_text())
  assert [verb for verb in calls if verb != "describe"] == renewed
  assert (worker / "arguments").exists()


@pytest.mark.parametrize("leaves", [True, False])
def test_resume_gives_a_running_trainer_time_to_save(call, worker, leaves):
  if leaves:  # dfim.main itself stays until it is killed
    (worker / "polite").touch()
  assert call("run", *FLAGS, gcloud=WORKER, DFIM_GRACE="1").returncode == 0
  first = (worker / "dfim.pid").read_text()
  (worker / "states").write_text("ACTIVE\nACTIVE\n")
  seconds = dict(DFIM_POLL="0", DFIM_GRACE="1", DFIM_PATIENCE="60" if leaves else "2")
  process = call("resume", *FLAGS, gcloud=without_setup(WORKER), **seconds)
  assert process.returncode == 0, process.stderr
  assert (worker / "dfim.pid").read_text() != first
  time.sleep(0.2)
  assert (worker / "dfim.log").read_text().splitlines() == ["step 1", "saved", "step 1"]


def test_names_no_project():
  text = SCRIPT.read_text()
  assert "project=${DFIM_PROJECT:-} " in text
  assert set(re.findall(r"--project=(\S+)", text)) == {'"$project"'}


def test_bash_parses_it():
  subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
  assert os.access(SCRIPT, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not on the PATH")
def test_shellcheck():
  process = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
  assert process.returncode == 0, process.stdout
