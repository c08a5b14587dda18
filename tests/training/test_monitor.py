"""Rates, waits, counts of compilations, memory, peaks, and a profile of a window of steps."""

import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imm_digits
from dfim import train
from dfim.training import experiment as experiment_lib, monitor, step

CONFIG = types.SimpleNamespace(steps=100, batch_size=32)


@pytest.fixture
def clock(monkeypatch):
  now = types.SimpleNamespace(value=50.0)
  monkeypatch.setattr(monitor.time, "monotonic", lambda: now.value)
  return now


def metrics(skipped=0):
  return dict(loss=0.25, skipped=skipped)


def test_rates_are_those_since_the_last_line_and_waits_shares_of_the_time(clock):
  line = monitor.Progress(CONFIG, 3)
  line.start(10)
  assert line.line(10, metrics(3)) == ("step 10/100  loss 0.25", {}), "the first step has no rate"
  clock.value += 5
  text, rates = line.line(20, metrics(3))
  assert text == "step 20/100  loss 0.25  2.0 it/s  64 examples/s  ETA 0:00:40"
  assert rates == dict(steps_per_second=2.0)
  clock.value += 1
  text, rates = line.line(30, metrics(5))
  assert rates["steps_per_second"] == 10.0 and "skipped 2 not finite" in text
  line = monitor.Progress(CONFIG, 0)
  line.start(0)
  for what, seconds in (("data", 1.0), ("saving", 0.25), ("data", 1.0)):
    with line.waiting(what):
      clock.value += seconds
  clock.value += 2.75
  text, rates = line.line(10, metrics())
  assert rates["waiting_for_data"] == 0.4 and rates["waiting_for_saving"] == 0.05
  assert "waiting for data 40% of the time" in text and "saving" not in text
  clock.value += 1
  assert "waiting_for_data" not in line.line(20, metrics())[1], "counted once"


class Busy:
  """A result that a device has at `ready`."""

  def __init__(self, clock, ready):
    self.clock, self.ready = clock, ready

  def is_ready(self):
    return self.clock.value >= self.ready

  def block_until_ready(self):
    """Waits for the clock of this test."""
    while not self.is_ready():
      time.sleep(0.001)


@pytest.mark.parametrize(
  "ready, counted",
  [(0.0, 0.5), (0.25, 0.25), (9.0, 0.0)],
  ids=["idle all along", "idle after its steps", "busy all along"],
)
def test_the_devices_own_steps_are_no_wait_for_data(clock, ready, counted):
  line = monitor.Progress(CONFIG, 0)
  line.start(0)
  busy = Busy(clock, clock.value + ready)
  with line.waiting("data", busy=busy):
    clock.value += 0.25
    if 0.0 < ready <= 0.25:
      line._watcher.submit(int).result()  # the watcher has seen it
    clock.value += 0.25
  clock.value += 0.5
  busy.ready = 0.0
  assert line.line(10, metrics())[1].get("waiting_for_data", 0.0) == counted


def test_compilations_are_counted_while_open():
  double = jax.jit(lambda x: 2.0 * x + 1.0)
  with monitor.Compilations() as compilations:
    for _ in range(3):
      double(jnp.ones(7))
    inside = compilations.count
    double(jnp.ones(8))
  assert compilations.count > inside >= 1
  inside = compilations.count
  double(jnp.ones(9))
  assert compilations.count == inside


def test_memory_grows_with_an_array_that_is_held():
  before = monitor.memory(jax.devices()[0])
  held = np.ones(25_000_000)
  assert monitor.memory(jax.devices()[0]) - before > 0.75 * held.nbytes


@pytest.mark.slow
def test_a_window_of_steps_is_profiled(tmp_path):
  config = imm_digits.get_config("smoke")
  config.evaluators = {}
  with jax.debug_key_reuse(False):
    train.train(config, str(tmp_path), devices=jax.devices()[:1], profile=(3, 4))
  assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_a_window_before_a_resumed_run_is_logged_and_not_profiled(tmp_path, caplog):
  with monitor.Profile(tmp_path, (3, 4), seen=3) as profile:
    for step in (4, 5, 6):
      profile.before(step, None)
  assert len(caplog.records) == 1 and "No profile: step 3" in caplog.text
  assert not list(tmp_path.iterdir())


def test_flops_are_those_of_the_layers_not_of_the_loop():
  def of(**changes):
    config = imm_digits.get_config("smoke")
    size = dict(patch=2, width=32, depth=2, heads=2, num_classes=10)
    config.model = dict(name="models.dit.DiT", **{**size, **changes})
    return step.flops(experiment_lib.build(config, devices=jax.devices()[:1]))

  plain = of(scan=False, remat="none")
  assert of(scan=True, remat="block") == plain
  assert 1.5 < of(depth=4) / of(depth=2) < 2.1
