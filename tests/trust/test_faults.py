"""Numbers that are not finite, signals, a full disk: the stated policy, and nothing lost."""

import resource
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imm_digits
from dfim import train
from dfim.checkpoints import checkpoint
from dfim.core import kernels
from dfim.data.images import digits
from dfim.training import experiment as experiment_lib, nonfinite, preemption, replay
from tests import trust
from tests.data.helpers import assert_equal
from tests.trust import config as config_lib

pytestmark = pytest.mark.usefixtures("keys_unchecked")
ONE = jax.devices()[:1]


def nan_batches(batch_size, seed, start=0, *, bad_from, process=(0, 1)):
  """The digits, but from batch `bad_from` on one pixel is NaN."""
  good = digits.digits(batch_size, seed, start, split="train", process=process)
  for n, batch in enumerate(good, start):
    if n >= bad_from:
      batch["x"].flat[0] = np.nan
    yield batch


def bad_value(x, y, scale):
  """A kernel that is infinity minus infinity where particles are far apart."""
  k = kernels.laplace(x, y, scale)
  return jnp.where(k < 0.5, jnp.log(0.0 * k) - jnp.log(0.0 * k), k)


def bad_gradient(x, y, scale):
  """A right kernel, whose gradient is 0 / 0."""
  return kernels.laplace(x, y, scale) + 0.0 * jnp.sum(jnp.sqrt(jnp.square(x - x)), axis=-1)


HERE = "tests.trust.test_faults"
FAULTS = dict(
  batch=("data", dict(name=f"{HERE}.nan_batches", bad_from=3)),
  kernel=("objective.kernel", dict(name=f"{HERE}.bad_value")),
  gradient=("objective.kernel", dict(name=f"{HERE}.bad_gradient")),
  # 0 / 0 where a gradient is 0: a network that starts with zeros has many
  update=("optimizer", dict(name="optax.adam", learning_rate=1e-3, eps=0.0)),
)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FAULTS if name != "batch"]


@pytest.mark.parametrize("fault", ["batch", *SLOW])
def test_steps_that_are_not_finite_leave_the_state_count_stop_and_replay(fault, tmp_path):
  fine, config = (trust.small(imm_digits.get_config("smoke"), steps=n, every=100) for n in (3, 40))
  where, what = FAULTS[fault]
  (config.objective if where.startswith("objective") else config)[where.split(".")[-1]] = what
  good = 3 if fault == "batch" else 0
  bundle = tmp_path / "run" / "replay" / str(good + 10)
  with pytest.raises(nonfinite.NonFiniteError, match=f"^step {good + 10}: .*={bundle}$"):
    train.train(config, str(tmp_path / "run"), devices=ONE)

  experiment = experiment_lib.build(fine, devices=ONE)
  before = experiment.first_state()
  if good:
    before = train.train(fine, str(tmp_path / "fine"), devices=ONE)
  state = checkpoint.restore(str(bundle), experiment.abstract_state())
  assert int(state.step) == good and int(state.skipped) == 9
  assert_equal(before.replace(skipped=0), state.replace(skipped=0))

  found = replay.replay(str(bundle), devices=ONE)
  if fault == "update":
    assert all(name.startswith("update/params/") for name in found) and found
  else:
    assert any(name.startswith("params/") for name in found)
  assert ("batch/x" in found) == (fault == "batch")
  assert ("loss" in found) == (fault in ("batch", "kernel"))
  with pytest.raises(nonfinite.NonFiniteError, match=f"--workdir={bundle}.1$"):  # it fails again
    train.train(config, str(tmp_path / "run"), devices=ONE)


def test_a_short_run_without_one_good_step_is_an_error(tmp_path):
  config = trust.small(imm_digits.get_config("smoke"), steps=5, every=5)
  config.optimizer = FAULTS["update"][1]
  with pytest.raises(nonfinite.NonFiniteError, match="step 5: .* 5 steps running"):
    train.train(config, str(tmp_path), devices=ONE)
  assert not checkpoint.steps(str(tmp_path))
  with pytest.raises(checkpoint.ConfigError, match="no config.json"):
    replay.replay(str(tmp_path / "checkpoints"))


ALSO = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGUSR1)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *ALSO])  # Ctrl-C: below too
def test_a_signal_saves_and_ends_with_a_code_for_the_scheduler(number, tmp_path):
  process = trust.start(trust.trainer(tmp_path))
  log = tmp_path / "metrics.jsonl"
  trust.until(lambda: log.exists() and log.read_text().count("\n") > 3, process)
  process.send_signal(number)
  _, printed = process.communicate(timeout=60)
  assert process.returncode == preemption.EXIT_CODE == 75, printed
  (step,) = checkpoint.steps(str(tmp_path))
  assert f"after step {step}" in printed.splitlines()[-1]
  assert len(log.read_text().splitlines()) == step, "the log ends where the checkpoint is"


@pytest.mark.parametrize("seed", range(trust.scaled(1, 12)))
def test_the_first_ctrl_c_is_never_lost_and_the_second_leaves_at_once(seed, tmp_path):
  """At moments of the first save, in which callbacks of JAX swallow KeyboardInterrupt."""
  process = trust.start(trust.trainer(tmp_path, "--config.checkpoint_every=3"))
  trust.until((tmp_path / "config.json").exists, process)
  time.sleep(float(np.random.default_rng(seed).uniform(0.0, 4.0)))
  process.send_signal(signal.SIGINT)
  if seed % 3 == 2:
    process.send_signal(signal.SIGINT)
  _, printed = process.communicate(timeout=120)
  assert "dfim: Ctrl-C: " in printed
  assert process.returncode in ((75,) if seed % 3 != 2 else (75, 1)), printed
  config = trust.small(config_lib.get_config(), steps=1, every=1)
  abstract = experiment_lib.build(config, devices=ONE).abstract_state()
  if saved := checkpoint.steps(str(tmp_path)):
    assert int(checkpoint.restore(str(tmp_path), abstract).seen) == saved[-1]


def limit_files():
  """No file of this process grows beyond 20 KB, as on a full disk."""
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_save_that_fails_stops_the_run_and_keeps_the_last_good_one(tmp_path):
  config = trust.small(imm_digits.get_config("smoke"), steps=5, every=5)
  train.train(config, str(tmp_path), devices=ONE)
  run = trust.trainer(tmp_path, "--config.checkpoint_every=5")
  failed = trust.start(run, preexec_fn=limit_files)
  _, printed = failed.communicate(timeout=120)
  assert failed.returncode == 1, printed
  (said,) = [line for line in printed.splitlines() if line.startswith("dfim: ")]
  assert "step 10 could not be written" in said
  assert "_SignalingThread" not in printed, "a line of Orbax's threads"
  assert "Event loop is closed" not in printed, "the end of TensorStore's threads"
  assert checkpoint.steps(str(tmp_path)) == [5]
  config.steps = 12
  assert int(train.train(config, str(tmp_path), devices=ONE).step) == 12
  assert checkpoint.steps(str(tmp_path)) == [5, 10, 12]


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_the_last_good_one(tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("mounting a small tmpfs takes rights that this user lacks")
  try:
    flags = "--config.checkpoint_every=5", "--config.keep_checkpoints=1000"
    failed = trust.start(trust.trainer(disk, *flags))
    _, printed = failed.communicate(timeout=300)
    assert failed.returncode == 1, printed
    assert " could not be written" in printed
    experiment = experiment_lib.build(config_lib.get_config(), devices=ONE)
    state = checkpoint.restore(str(disk), experiment.abstract_state())
    assert int(state.seen) == checkpoint.steps(str(disk))[-1]
  finally:
    subprocess.run(["umount", str(disk)], check=True)
