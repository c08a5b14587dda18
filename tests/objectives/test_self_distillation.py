"""Lagrangian self-distillation: 0 for a Gaussian's own flow map; finite differences."""

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
from dfim.objectives import denoising, self_distillation

FM = ip.FlowMatching()
FS = [pz.EulerFlow(FM), pz.SimpleEDM(FM), pz.SimpleEDM(ip.Cosine()), pz.Identity(FM), pz.Noise(FM)]
fs = pytest.mark.parametrize("f", FS, ids=repr)


def sample_times(pattern=patterns.example, **ends):
  return functools.partial(times_lib.sample, pattern=pattern, **dict(t_max=0.9, t_min=0.05) | ends)


def loss(apply, params, frozen, batch, key=0, **changed):
  given = dict(f=FS[0], sample_times=sample_times(), weight=weights.uniform, share=0.5) | changed
  return self_distillation.loss(apply, params, frozen, batch, jax.random.key(key), **given)


def flow_of_gaussian(f):
  """The network of the flow map of N(0, 0.3^2): x_s = (std(s) / std(t)) x_t, if `power` is 1."""
  std = lambda t: jnp.sqrt(0.09 * f.path.alpha(t) ** 2 + 0.25 * f.path.sigma(t) ** 2)

  def net(power, x_in, s, t, cond, *, rngs=None, streams=1):
    of_x, of_raw = f.velocity(t)
    log_slope = jax.jvp(lambda t: jnp.log(std(t)), (t,), (jnp.ones_like(t),))[1]
    jump = ((std(s) / std(t)) ** power - f.c_skip(s, t)) / jnp.where(s == t, 1.0, f.c_out(s, t))
    return jnp.where(s == t, (log_slope - of_x) / of_raw, jump) * x_in / f.c_in(t)

  return net


@fs
def test_the_flow_map_of_a_gaussian_has_a_residual_and_a_gradient_of_0_and_another_map_has_not(f):
  x = 0.3 * jax.random.normal(jax.random.key(1), (64, 3))
  of = lambda power: loss(flow_of_gaussian(f), power, 1.0, dict(x=x), f=f)[1]["residual"]
  value = jax.jit(jax.value_and_grad(of))
  (right, slope), (off, away) = value(1.0), value(1.1)
  assert right < 1e-8 < 1e-4 < off
  assert abs(slope) < 1e-4 < abs(away)


def test_the_gradient_is_that_of_the_derivative_alone(float64):
  """f = x - (t - s) 0.5 p s x: at p = 1 the point moves with p, and the target does not."""
  f, x = FS[0], jnp.ones((1, 1))
  s, t = jnp.full((1, 1), 0.2), jnp.full((1, 1), 0.7)
  net = lambda p, x_in, s, t, cond: jnp.where(s == t, 3.0 * x_in, p * s * x_in / f.c_in(t))
  of = lambda p: self_distillation.residual(net, p, 1.0, x, s, t, s < t, None, f).sum()
  # d f / ds = 0.5 p (2 s - t), in units of 0.5
  np.testing.assert_allclose(jax.grad(of)(1.0), 2 * 0.2 - 0.7, rtol=1e-9)


def tanh(params, x, s, t, cond=None, *, rngs=None, streams=1):
  return jnp.tanh(params * jnp.cumsum(x, axis=1) + jnp.sin(3.0 * s) - t**2)


@fs
def test_the_residual_equals_finite_differences(f, key, float64):
  """(f(x_t; s + h, t) - f(x_t; s - h, t)) / 2h less the velocity, a difference as well."""
  key_x, key_t = jax.random.split(key)
  x_t = jax.random.normal(key_x, (6, 5, 2))
  s, t = jnp.sort(jax.random.uniform(key_t, (2, 6, 1, 1), minval=0.1, maxval=0.8), axis=0)
  active = jnp.arange(6).reshape(6, 1, 1) > 0
  found = self_distillation.residual(tanh, 0.7, 0.4, x_t, s, t, active, None, f)
  h = 1e-5
  slope = (f(tanh, 0.7, x_t, s + h, t) - f(tanh, 0.7, x_t, s - h, t)) / (2 * h)
  x_s = f(tanh, 0.7, x_t, s, t)
  raw = tanh(0.4, f.c_in(s) * x_s, s, s)
  along = lambda u: f(lambda *_: raw, None, x_s, u, s)
  velocity = (along(s + h) - along(s - h)) / (2 * h)
  unit = (f.c_out(s + h, s) - f.c_out(s - h, s)) / (2 * h)
  np.testing.assert_allclose(found[1:], ((slope - velocity) / unit)[1:], rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(found[0], 0.0)


def test_the_other_part_is_denoising():
  """With a share of a quarter: rows from the ninth on, at the same times and noise."""
  x = 0.5 * jax.random.normal(jax.random.key(2), (32, 3))
  given = dict(f=FS[1], sample_times=sample_times(), weight=weights.uniform)
  later = lambda path, s, t, *, target: 1.0 * (jnp.arange(32)[:, None] >= 8)
  with jax.debug_key_reuse(False):
    _, metrics = loss(tanh, 0.7, 0.4, dict(x=x), share=0.25, **given)
    given["weight"] = later
    value, _ = denoising.loss(tanh, 0.7, None, dict(x=x), jax.random.key(0), **given)
  np.testing.assert_allclose(metrics["mse"], value * 32 / 24, rtol=1e-5)


def test_the_gradient_is_of_params_alone():
  x = 0.5 * jax.random.normal(jax.random.key(2), (16, 3))
  of = lambda params, frozen: loss(tanh, params, frozen, dict(x=x))[1]["residual"]
  of_params, of_frozen = jax.jit(jax.grad(of, (0, 1)))(0.7, 0.4)
  assert np.isfinite(of_params) and of_params != 0.0 == of_frozen


def of_transformer(streams):
  net, x = CausalTransformer(16, 1, 2), np.random.default_rng(0).normal(size=(4, 6, 2))
  t = np.ones((4, 6, 1))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, t)
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.3, p.shape), jnp.float32), shapes)
  pattern = patterns.two_stream if streams == 2 else patterns.example
  given = dict(sample_times=sample_times(pattern), streams=streams)
  value = lambda p, batch: loss(net.apply, p, params, batch, **given)[0]
  return x, jax.jit(functools.partial(jax.value_and_grad(value), params))


@pytest.mark.parametrize("streams", [1, 2])
def test_the_loss_is_the_same_bits_whatever_is_in_the_padding(streams):
  x, of = of_transformer(streams)
  mask = (np.arange(6)[None] < np.array([6, 2, 0, 3])[:, None])[..., None]
  expected = of(dict(x=x, mask=mask))
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(expected)) and expected[0] > 0.0
  for fill in (np.nan, 3e38):
    found = of(dict(x=np.where(mask, x, fill), mask=mask))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_two_streams_keep_the_context_while_their_tokens_jump():
  """Gaussian tokens by themselves, each at times of its own: the residual is 0 there too."""
  f = FS[1]
  x = 0.3 * jax.random.normal(jax.random.key(1), (64, 4, 2))
  given = dict(sample_times=sample_times(patterns.two_stream), streams=2, f=f)
  of = jax.jit(lambda p: loss(flow_of_gaussian(f), p, 1.0, dict(x=x), **given)[1]["residual"])
  assert of(1.0) < 1e-8 < 1e-4 < of(1.1)


@pytest.mark.parametrize(
  "changed, field",
  [
    (dict(share=0.0), "share=0.0"),
    (dict(share=1.0), "share=1.0"),
    (dict(sample_times=sample_times(patterns.token)), "self_distillation with times"),
  ],
)
def test_wrong_fields_are_named(changed, field):
  with pytest.raises(ValueError, match=f"^{field}"):
    loss(tanh, 0.7, 0.4, dict(x=jnp.ones((8, 5, 2))), **changed)
