"""The line of a run: rates since the start of the clock, and what it waits for."""

import time
import types

import pytest

from dfim.training import progress

CONFIG = types.SimpleNamespace(steps=100, batch_size=32)


@pytest.fixture
def clock(monkeypatch):
  now = types.SimpleNamespace(value=50.0)
  monkeypatch.setattr(progress.time, "monotonic", lambda: now.value)
  return now


def metrics(skipped=0):
  return dict(loss=0.25, skipped=skipped)


def test_rates_are_those_since_the_last_line(clock):
  line = progress.Progress(CONFIG, 3)
  line.start(10)
  clock.value += 5
  text, rates = line.line(20, metrics(3))
  assert text == "step 20/100  loss 0.25  2.0 it/s  64 examples/s  ETA 0:00:40"
  assert rates == dict(steps_per_second=2.0)
  clock.value += 1
  text, rates = line.line(30, metrics(5))
  assert rates["steps_per_second"] == 10.0 and "skipped 2 not finite" in text


def test_it_says_what_it_waits_for(clock):
  line = progress.Progress(CONFIG, 0)
  line.start(0)
  for what, seconds in (("data", 1.0), ("saving", 0.25), ("data", 1.0)):
    with line.spent(what):
      clock.value += seconds
  clock.value += 2.75
  text, rates = line.line(10, metrics())
  assert rates["waiting_for_data"] == 0.4 and rates["waiting_for_saving"] == 0.05
  assert "waiting for data 40% of the time" in text and "saving" not in text
  clock.value += 1
  assert "waiting_for_data" not in line.line(20, metrics())[1], "counted once"


def test_the_first_step_alone_has_no_rate(clock):
  line = progress.Progress(CONFIG, 0)
  line.start(1)
  assert line.line(1, metrics()) == ("step 1/100  loss 0.25", {})


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
  line = progress.Progress(CONFIG, 0)
  line.start(0)
  busy = Busy(clock, clock.value + ready)
  with line.spent("data", busy=busy):
    clock.value += 0.25
    if 0.0 < ready <= 0.25:
      line._watcher.submit(int).result()  # the watcher has seen it
    clock.value += 0.25
  clock.value += 0.5
  busy.ready = 0.0
  assert line.line(10, metrics())[1].get("waiting_for_data", 0.0) == counted
