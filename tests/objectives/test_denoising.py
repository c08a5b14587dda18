"""Denoising: the minimum is the conditional mean, and times may be per token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import (
  interpolants as ip,
  parameterization as pz,
  patterns,
  times as times_lib,
  weights,
)
from dfim.models.causal_transformer import CausalTransformer
from dfim.objectives import denoising

FM = ip.FlowMatching()
FS = [pz.EulerFlow(FM), pz.SimpleEDM(ip.Cosine()), pz.Identity(FM), pz.Noise(ip.Cosine())]


def sample_times(pattern=patterns.example):
  return functools.partial(times_lib.sample, pattern=pattern, t_max=0.9, t_min=0.05)


@pytest.mark.parametrize("f", FS, ids=repr)
def test_the_best_linear_network_is_the_conditional_mean(f):
  """N(0, 0.3^2) data: the optimum is linear in x_t, with a factor known for every target."""
  x = 0.3 * jax.random.normal(jax.random.key(1), (200_000, 1))
  alpha, sigma = f.path.alpha, f.path.sigma
  one = jnp.ones(())

  def best(params, x_in, s, t, cond, *, rngs):
    signal, noise = alpha(t) * 0.3**2, sigma(t) * 0.5**2
    var = alpha(t) * signal + sigma(t) * noise
    clean, noise = signal / var, noise / var  # E[x | x_t] and E[eps | x_t], over x_t
    factor = f.target(clean, noise, t)
    return params * factor * x_in / f.c_in(t)

  def value(scale):
    args = dict(f=f, sample_times=sample_times(), weight=weights.uniform)
    return denoising.loss(best, scale, None, dict(x=x), jax.random.key(0), **args)[0]

  slope = jax.grad(value)(one)
  assert abs(slope) < 0.02, "the conditional mean is stationary"
  assert value(one) < value(0.9 * one) and value(one) < value(1.1 * one)


def test_the_network_is_evaluated_at_s_equal_t_per_token(key):
  seen = {}

  def spy(params, x, s, t, cond, *, rngs):
    seen.update(s=s, t=t)
    return jnp.zeros_like(x)

  args = dict(f=FS[0], sample_times=sample_times(patterns.token), weight=weights.uniform)
  value, metrics = denoising.loss(spy, None, None, dict(x=jnp.ones((8, 5, 2))), key, **args)
  assert seen["t"].shape == (8, 5, 1)
  np.testing.assert_array_equal(seen["s"], seen["t"])
  assert len(np.unique(seen["t"])) == 40
  np.testing.assert_allclose(value, metrics["mse"])


def per_token(params, x, s, t, cond=None, *, rngs=None):
  return params * jnp.cumsum(x, axis=1) + t


LENGTHS = [[6, 4, 1], [3, 0, 6]]
FILLS = dict(nan=(np.nan, -(2**31)), huge=(3e38, 2**31 - 1), one=(1.0, 1))


def conditioned(seed):
  rng = np.random.default_rng(seed)
  cond = dict(
    action=rng.normal(size=(3, 6, 2)),
    button=rng.integers(0, 5, (3, 6)),
    flag=rng.random((3, 6)) < 0.5,
    goal=rng.normal(size=(3, 4)),
    label=rng.integers(0, 3, 3),
  )
  return dict(x=rng.normal(size=(3, 6, 2)), cond=cond)


def overwritten(batch, mask, number, integer):
  """`batch` with other values wherever a token or an example is padding."""

  def fill(a):
    if a.dtype == bool:
      return np.where(mask, a, ~a)
    here = mask if a.ndim == 3 or a.shape == (3, 6) else mask.any(axis=1)
    here = here.reshape(*here.shape, *[1] * (a.ndim - here.ndim))
    return np.where(here, a, integer if a.dtype.kind == "i" else number)

  return jax.tree.map(fill, batch)


def value_and_slope(streams, causal):
  net, like = CausalTransformer(16, 1, 2, num_classes=3, causal=causal), conditioned(0)
  t = np.ones((3, 6, 1))
  shapes = jax.eval_shape(net.init, jax.random.key(0), like["x"], t, t, like["cond"])
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.3, p.shape), jnp.float32), shapes)
  pattern = patterns.two_stream if streams == 2 else patterns.token
  args = dict(f=FS[1], sample_times=sample_times(pattern), weight=weights.min_snr, streams=streams)
  loss = functools.partial(denoising.loss, net.apply, drop_rate=0.3, **args)
  value = lambda p, batch: loss(p, None, batch, jax.random.key(0))[0]
  return jax.jit(functools.partial(jax.value_and_grad(value), params))


@pytest.mark.parametrize("streams, causal", [(1, True), (1, False), (2, True)])
def test_the_loss_is_the_same_bits_whatever_is_in_the_padding(streams, causal):
  """Values and conditions of each token, and all conditions of an example that is all padding."""
  of, batch = value_and_slope(streams, causal), conditioned(0)
  for lengths in LENGTHS:
    mask = np.arange(6)[None] < np.array(lengths)[:, None]
    given = dict(mask=mask[..., None])
    expected = of(batch | given)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(expected))
    for fill in FILLS.values():
      found = of(overwritten(batch, mask, *fill) | given)
      jax.tree.map(np.testing.assert_array_equal, found, expected)
    other = batch | given | dict(cond=conditioned(2)["cond"])
    assert of(other)[0] != expected[0], "conditions of real tokens are read"


def test_nothing_active_is_a_loss_of_zero(key):
  batch = dict(x=jnp.ones((2, 6, 2)), mask=np.zeros((2, 6, 1), bool))
  args = dict(f=FS[1], sample_times=sample_times(), weight=weights.uniform)
  of = lambda params: denoising.loss(per_token, params, None, batch, key, **args)
  (value, metrics), slope = jax.value_and_grad(of, has_aux=True)(2.0)
  assert value == metrics["mse"] == slope == 0.0


def test_a_weight_that_is_infinite_at_padding_changes_nothing(key):
  """IMM's with a < 1 is at t = 1, where padding is."""
  mask = (np.arange(6) < 4).reshape(1, 6, 1)
  pattern = functools.partial(times_lib.sample, pattern=patterns.token, t_max=1.0, t_min=0.05)
  args = dict(f=FS[0], sample_times=pattern, weight=functools.partial(weights.imm, a=0.5))
  batch = dict(x=jnp.ones((2, 6, 2)), mask=mask)
  of = lambda params: denoising.loss(per_token, params, None, batch, key, **args)[0]
  value, slope = jax.value_and_grad(of)(2.0)
  assert np.isfinite(value) and np.isfinite(slope) and slope != 0.0


@pytest.mark.parametrize("pattern", [patterns.next_token, patterns.context, patterns.pivot])
def test_the_mean_is_over_active_tokens(pattern, key):
  """With an error of 1 everywhere the loss is the mean weight of active tokens, however few."""
  f = FS[2]

  def off_by_one(params, x, s, t, cond, *, rngs):
    return 1.0 + params

  x = jnp.ones((16, 5, 3))
  args = dict(f=f, sample_times=sample_times(pattern), weight=weights.uniform)
  value, _ = denoising.loss(off_by_one, x, None, dict(x=x), key, **args)
  np.testing.assert_allclose(value, 1.0, rtol=1e-6)


def test_two_streams_regress_active_tokens_alone(key):

  def spied(x, action):
    seen = {}

    def spy(params, x, s, t, cond, *, rngs, streams):
      assert streams == 2
      seen.update(t=t, action=cond["action"])
      return jnp.where(jnp.arange(10)[None, :, None] < 5, jnp.nan, jnp.ones_like(x))

    pattern = functools.partial(patterns.two_stream, noisy=0.0)
    given = dict(f=FS[2], sample_times=sample_times(pattern), weight=weights.uniform, streams=2)
    batch = dict(x=x, cond=dict(action=action))
    return denoising.loss(spy, None, None, batch, key, **given)[0], seen

  value, seen = jax.jit(spied)(jnp.zeros((8, 5, 2)), jnp.ones((8, 5, 3)))
  np.testing.assert_allclose(value, 1.0, rtol=1e-6)
  assert seen["action"].shape == (8, 10, 3)
  clean = np.asarray(seen["t"][..., 0]) == np.float32(0.05)
  np.testing.assert_array_equal(clean, np.tile(np.arange(10) < 5, (8, 1)))
