"""The jitted step: compiled once, the same on 1 and 8 devices, what the network is told."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import consistency_digits
from configs import dfim_walk
from configs import flow_digits
from configs import imm_digits
from configs import imm_toy
from dfim import experiment as experiment_lib
from dfim import sharding
from dfim import train

CONFIGS = dict(
  imm=imm_digits.get_config,
  flow=flow_digits.get_config,
  consistency=consistency_digits.get_config,
  toy=imm_toy.get_config,
  fusion=dfim_walk.get_config,
)


@pytest.fixture(params=CONFIGS)
def config(request):
  return CONFIGS[request.param]("smoke")


def run(config, devices, steps=2):
  experiment = experiment_lib.build(config, devices=devices)
  state = train.start_state(experiment, "no_such_folder")
  step = train.make_step(
    experiment.apply, experiment.loss, experiment.tx, places=experiment.places()
  )
  batches = experiment.batches(0)
  losses = []
  for _ in range(steps):
    state, metrics = step(state, next(batches), jax.random.key(1))
    losses.append(float(metrics["loss"]))
  return losses, state, step


def test_one_and_eight_devices_agree(config):
  with jax.debug_key_reuse(False):  # keys are made anew, as two processes would
    one, state_one, _ = run(config, jax.devices()[:1])
    config.fsdp = True
    eight, state_eight, step = run(config, jax.devices())
  np.testing.assert_allclose(one, eight, rtol=1e-4)
  assert step._cache_size() == 1, "compiled once"
  # The first Adam steps are about the learning rate whatever the gradient: compare coarsely.
  chex.assert_trees_all_close(
    jax.device_get(state_one.params), jax.device_get(state_eight.params), atol=5e-3
  )


def test_fsdp_cuts_large_arrays_along_their_largest_axis_that_fits():
  mesh = sharding.make_mesh()
  shapes = dict(
    wide=jax.ShapeDtypeStruct((256, 512), jnp.float32),
    odd=jax.ShapeDtypeStruct((257, 513), jnp.float32),
    tall=jax.ShapeDtypeStruct((513, 256), jnp.float32),
    small=jax.ShapeDtypeStruct((8, 8), jnp.float32),
  )
  cut = {k: v.spec for k, v in sharding.of_state(shapes, mesh, fsdp=True).items()}
  whole = jax.P()
  assert cut == dict(wide=jax.P(None, "data"), odd=whole, tall=jax.P(None, "data"), small=whole)
  assert set(v.spec for v in sharding.of_state(shapes, mesh).values()) == {whole}


def test_groups_never_straddle_devices():
  mesh = sharding.make_mesh()
  sharding.check_batch(64, 4, mesh)
  with pytest.raises(ValueError, match="batch_size=48.*4 x 8; set batch_size=32"):
    sharding.check_batch(48, 4, mesh)


def test_reach_shortens_the_jumps_as_its_schedule_says():
  config = imm_toy.get_config("smoke")
  seen = []

  def spy(apply, params, frozen, batch, key, *, sample_times, **_):
    times = sample_times(key, (512, 2), path=experiment.f.path)
    value = jnp.sum(jnp.square(jax.tree.leaves(params)[0]))
    return value, {"loss": value, "length": jnp.max(times.t - times.s)}

  experiment = experiment_lib.build(config)
  loss = functools.partial(spy, sample_times=experiment.loss.keywords["sample_times"])
  schedule = lambda step: jnp.where(step < 2, 0.1, 1.0)
  step = train.make_step(experiment.apply, loss, experiment.tx, reach=schedule)
  state = experiment.init(jax.random.key(0))
  for _ in range(4):
    state, metrics = step(state, {}, jax.random.key(1))
    seen.append(float(metrics["length"]))
  assert max(seen[:2]) <= 0.1 + 1e-6 and min(seen[2:]) > 0.5


@pytest.mark.slow  # ten minutes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ten_seeds_of_the_fusion_stay_finite(dtype):
  config = dfim_walk.get_config()
  config.model.dtype = dtype
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  step = train.step_of(experiment)
  for seed in range(10):
    state, batches = experiment.init(jax.random.key(seed)), experiment.batches(300 * seed)
    for _ in range(300):
      state, metrics = step(state, next(batches), jax.random.key(seed))
    assert int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"])
