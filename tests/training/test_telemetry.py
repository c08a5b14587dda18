"""Counts of compilations, memory, peaks, and a profile that is there."""

import types

import jax
import jax.numpy as jnp
import pytest

from configs import imm_digits
from dfim import train
from dfim.training import experiment as experiment_lib
from dfim.training import step
from dfim.training import telemetry


def test_compilations_are_counted_while_open(key):
  double = jax.jit(lambda x: 2.0 * x + 1.0)
  with telemetry.Compilations() as compilations:
    for _ in range(3):
      double(jnp.ones(7))
    inside = compilations.count
    double(jnp.ones(8))
    assert compilations.count > inside
  double(jnp.ones(9))
  assert inside >= 1


def test_memory_grows_with_what_is_held():
  before = telemetry.memory(jax.devices()[0])
  held = bytearray(200_000_000)
  held[::4096] = b"x" * len(held[::4096])
  assert telemetry.memory(jax.devices()[0]) - before > 150_000_000


def test_the_peak_is_that_of_the_kind():
  of = lambda kind: telemetry.peak_flops(types.SimpleNamespace(device_kind=kind))
  assert of("NVIDIA H200") == 989e12 and of("TPU v5 lite") == 197e12 and of("TPU v5p") == 459e12
  assert of("cpu") is None


@pytest.mark.slow
def test_a_window_of_steps_is_profiled(tmp_path):
  config = imm_digits.get_config("smoke")
  config.evaluators = {}
  with jax.debug_key_reuse(False):
    train.train(config, str(tmp_path), devices=jax.devices()[:1], profile=(3, 4))
  assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_a_window_that_a_resumed_run_has_behind_it_is_told_once(tmp_path, caplog):
  with telemetry.Profile(tmp_path, (3, 4), seen=3) as profile:
    for step in (4, 5, 6):
      profile.before(step, None)
  assert [r.getMessage() for r in caplog.records] == [
    "No profile: step 3 was taken before this run, which resumes."
  ]
  assert not list(tmp_path.iterdir())


def test_flops_are_those_of_the_layers_not_of_the_loop():
  def of(**changes):
    config = imm_digits.get_config("smoke")
    size = dict(patch=2, width=32, depth=2, heads=2, num_classes=10)
    config.model = dict(name="models.dit.DiT", **{**size, **changes})
    return step.flops(experiment_lib.build(config, devices=jax.devices()[:1]))

  plain = of(scan=False, remat=False)
  assert of(scan=True, remat=True) == plain
  assert 1.5 < of(depth=4) / of(depth=2) < 2.1
