"""The jitted step: compiled once, the same on 1 and 8 devices, micro-batches, schedules."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import consistency_digits, flow_digits, imm_digits, imm_toy, moment_forcing_walk
from dfim import train
from dfim.training import experiment as experiment_lib, state as train_state, step as step_lib

CONFIGS = dict(  # tests/trust/test_layouts.py has imm's
  moment_forcing=moment_forcing_walk.get_config,
  consistency=consistency_digits.get_config,
  flow=flow_digits.get_config,
  self_distillation=lambda mode: flow_digits.self_distillation(flow_digits.get_config(mode)),
  energy_score=lambda mode: moment_forcing_walk.energy_score(moment_forcing_walk.get_config(mode)),
)
QUICK = {"moment_forcing"}


@pytest.fixture(
  params=[pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in CONFIGS]
)
def config(request):
  return CONFIGS[request.param]("smoke")


def run(config, devices, steps=2):
  experiment = experiment_lib.build(config, devices=devices)
  state = experiment.first_state()
  step = train.step_of(experiment)
  batches = experiment.batches(0)
  losses = []
  for _ in range(steps):
    state, metrics = step(state, next(batches), jax.random.key(1))
    losses.append(float(metrics["loss"]))
  return losses, state, step


def test_one_and_eight_devices_agree(config):
  with jax.debug_key_reuse(False):  # keys are made anew, as two processes would
    one, state_one, _ = run(config, jax.devices()[:1])
    config.fsdp = -1
    eight, state_eight, step = run(config, jax.devices())
  np.testing.assert_allclose(one, eight, rtol=1e-4)
  assert step._cache_size() == 1, "compiled once"
  # The first Adam steps are about the learning rate whatever the gradient: compare coarsely.
  params = (jax.device_get(s.params) for s in (state_one, state_eight))
  chex.assert_trees_all_close(*params, atol=5e-3)


@pytest.fixture(params=["loop", pytest.param("unrolled", marks=pytest.mark.slow)])
def either_loop(request, monkeypatch):
  """Micro-batches as a CPU takes them, and as an accelerator does."""
  if request.param == "loop":
    as_accelerator = lambda *args, cpu, default: default(*args)
    monkeypatch.setattr(jax.lax, "platform_dependent", as_accelerator)


def test_micro_batches_are_a_loop_on_the_platform_of_the_program_not_of_the_host(key):
  gradient = lambda part, key: ((jnp.sum(part), {}), jnp.sum(part))
  mean = jax.jit(lambda x: step_lib.accumulated(gradient, x, key, 4, 1))
  text = lambda to: mean.trace(jnp.ones((8, 1))).lower(lowering_platforms=(to,)).as_text()
  assert "while" in text("tpu") and "while" not in text("cpu")


def test_micro_batches_are_steps_of_their_own_groups_and_keys(either_loop, key):
  """The mean of separate gradients: no statistic of the whole batch, no key used twice."""
  experiment = experiment_lib.build(imm_digits.get_config("smoke"), devices=jax.devices()[:1])
  params, batch = experiment.init(key).params, next(experiment.batches(0))
  of_params = functools.partial(experiment.loss, functools.partial(experiment.apply, train=True))
  gradient = lambda part, key: jax.value_and_grad(of_params, has_aux=True)(
    jax.tree.map(lambda a: a + 0.01, params), params, part, key
  )
  with jax.debug_key_reuse(False):
    got = jax.jit(lambda: step_lib.accumulated(gradient, batch, key, 2, 4))()
    rows = [np.arange(64).reshape(8, 2, 4)[:, n].ravel() for n in range(2)]
    each = [
      jax.jit(gradient)(jax.tree.map(lambda a, n=n: a[rows[n]], batch), jax.random.fold_in(key, n))
      for n in range(2)
    ]
  assert each[0][0][0] != each[1][0][0]
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *each)
  chex.assert_trees_all_close(got, mean, rtol=1e-4, atol=1e-6)


def test_gradients_are_summed_in_float32(either_loop, key):
  gradient = lambda part, key: ((jnp.float32(0), {}), jnp.sum(part).astype(jnp.bfloat16))
  x = jnp.array([[256.0], [1.0], [1.0], [2.0]])  # 256 + 1 is 256 in bfloat16
  _, mean = step_lib.accumulated(gradient, x, key, 4, 1)
  assert mean.dtype == jnp.bfloat16 and float(mean) == 65.0


def test_micro_batches_stay_on_their_devices(either_loop):
  config = imm_toy.get_config("smoke")
  config.accumulate = 2
  with jax.debug_key_reuse(False):
    one, _, _ = run(config, jax.devices()[:1])
    eight, state, step = run(config, jax.devices())
    np.testing.assert_allclose(one, eight, rtol=1e-4)
    batch = next(experiment_lib.build(config).batches(0))
    program = step.lower(state, batch, jax.random.key(1)).compile().as_text()
  exchanges = [n for n in ("all-gather", "all-to-all", "collective-permute") if n in program]
  assert "all-reduce" in program and not exchanges, "gradients are summed, no example moves"


def test_schedules_follow_the_batches_seen():
  def loss(apply, params, frozen, batch, key, *, rate: float | jax.Array):
    return jnp.sum(params["w"]), {"rate": rate}

  bound = functools.partial(loss, rate=lambda n: 0.1 * n)
  tx = optax.sgd(0.1)
  step = train.make_step(lambda *a, train: None, bound, tx)
  state = train_state.init(dict(w=jnp.ones(1)), tx)
  for n in range(3):
    state, metrics = step(state, {}, jax.random.key(1))
    np.testing.assert_allclose(metrics["rate"], 0.1 * n, rtol=1e-6)


@pytest.mark.slow  # ten minutes, in bfloat16 on one busy core twenty
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ten_seeds_of_moment_forcing_stay_finite(dtype):
  config = moment_forcing_walk.get_config()
  config.model.dtype = dtype
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  step = train.step_of(experiment)
  for seed in range(10):
    state, batches = experiment.init(jax.random.key(seed)), experiment.batches(300 * seed)
    for _ in range(300):
      state, metrics = step(state, next(batches), jax.random.key(seed))
    assert int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"])
