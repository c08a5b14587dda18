"""Shortcut forcing: the loss of a consistent network is 0; two papers' formulas are its cases."""

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
from dfim.objectives import shortcut

FM = ip.FlowMatching()
ENDS = dict(t_max=1.0, t_min=0.0)
F = pz.SimpleEDM(ip.Cosine())
EXAMPLES, SHARE = 32, 0.25
FIRST = 8  # of the examples, bootstrapped
PARAMS, FROZEN = jnp.float32(0.7), jnp.float32(0.4)


def dyadic(pattern=patterns.context, **ends):
  return functools.partial(times_lib.dyadic, pattern=pattern, finest=8, **{**ENDS, **ends})


def loss(apply, params, frozen, batch, **changed):
  given = dict(f=F, sample_times=dyadic(), weight=weights.uniform, share=SHARE)
  return shortcut.loss(apply, params, frozen, batch, jax.random.key(0), **{**given, **changed})


def drawn(x, f, sample_times):
  key_times, key_noise, *_ = jax.random.split(jax.random.key(0), 4)
  times = sample_times(key_times, x.shape, path=f.path, bootstrapped=FIRST)
  eps = f.sigma_data * jax.random.normal(key_noise, x.shape)
  return times, eps, ip.interpolate(f.path, x, eps, times.t)


@pytest.fixture(scope="module")
def x():
  rng = np.random.default_rng(0)
  return jnp.asarray(0.5 * rng.normal(size=(EXAMPLES, 5, 2)), jnp.float32)


def network(params, x, s, t, cond=None, *, rngs=None):
  return jnp.tanh(params * jnp.cumsum(x, axis=1) + s - t)


def rows(bootstrapped):
  """A weight of 1 on the bootstrapped rows, or on the others, and 0 elsewhere."""
  chosen = (np.arange(EXAMPLES) < FIRST) == bootstrapped
  return lambda path, s, t, *, target: chosen[:, None, None] * jnp.ones_like(t)


def test_a_consistent_network_lands_where_its_halves_land(x):
  """N(0, 0.3^2) data: the flow's own map scales by the ratio of deviations."""
  std = lambda t: jnp.sqrt(0.09 * F.path.alpha(t) ** 2 + 0.25 * F.path.sigma(t) ** 2)

  def flow(off, x_in, s, t, cond, *, rngs):
    c_out = jnp.where(s == t, 1.0, F.c_out(s, t))
    return (off * std(s) / std(t) - F.c_skip(s, t)) / c_out * x_in / F.c_in(t)

  given = dict(f=F, weight=rows(True), sample_times=dyadic(t_max=0.95, t_min=0.05))
  of = lambda off: loss(flow, off, off, dict(x=x), **given)
  with jax.debug_key_reuse(False):
    (rest, metrics), (away, _) = map(jax.jit(of), (1.0, 1.1))
  assert rest < 1e-9 < 1e-3 < away
  assert metrics["mse"] > 1e-2, "the other rows meet data, not the flow"


def test_the_finest_jump_regresses_what_denoising_does(x):

  def both(x):
    times, eps, x_t = drawn(x, F, draw)
    raw = network(PARAMS, F.c_in(times.t) * x_t, times.s, times.t)
    error = jnp.square(raw - F.target(x, eps, times.t))[FIRST:]
    active = jnp.broadcast_to(times.active, x.shape)
    given = dict(f=F, weight=rows(False), sample_times=draw)
    value, _ = loss(network, PARAMS, FROZEN, dict(x=x), **given)
    return value, jnp.sum(error, where=active[FIRST:]) / jnp.sum(active)

  draw = dyadic(t_max=0.95, t_min=0.05)
  with jax.debug_key_reuse(False):
    value, expected = jax.jit(both)(x)
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def dreamer(x, eps, times):
  """Its loss in its own terms: tau is the signal, d the step, z~ the noisy token."""
  tau, d, z = 1 - times.t, times.t - times.s, (1 - times.t) * x + times.t * eps
  or_context = lambda predicted, z: jnp.where(times.active, predicted, z)

  def predict(params, z, tau, d):
    scale = 1 / (0.5 * jnp.sqrt(tau**2 + (1 - tau) ** 2))  # to unit variance
    return network(params, scale * z, 1 - tau - d, 1 - tau)

  b1 = (or_context(predict(FROZEN, z, tau, d / 2), z) - z) / (1 - tau)
  middle, tau_2 = z + b1 * d / 2, tau + d / 2
  b2 = (or_context(predict(FROZEN, middle, tau_2, d / 2), middle) - middle) / (1 - tau_2)
  clean = predict(PARAMS, z, tau, d)
  coarse = (1 - tau) ** 2 * jnp.square((clean - z) / (1 - tau) - (b1 + b2) / 2)
  finest = jnp.square(clean - x)
  return (0.9 * tau + 0.1) * jnp.concatenate([coarse[:FIRST], finest[FIRST:]])


def velocity(x, eps, times):
  """Shortcut Models' loss: a velocity, against the mean of its two halves, or eps - x."""
  s, t, z = times.s, times.t, (1 - times.t) * x + times.t * eps
  middle = (s + t) / 2
  scale = lambda t: 1 / (0.5 * jnp.sqrt((1 - t) ** 2 + t**2))
  v = lambda params, z, s, t: network(params, scale(t) * z, s, t)  # in units of 0.5
  v1 = v(FROZEN, z, middle, t)
  there = z - 0.5 * jnp.where(times.active, t - middle, 0.0) * v1
  v2 = v(FROZEN, there, s, middle)
  target = jnp.concatenate([((v1 + v2) / 2)[:FIRST], (eps - x)[FIRST:] / 0.5])
  return jnp.square(v(PARAMS, z, s, t) - target)


@pytest.mark.parametrize(
  "f,weight,formula",
  [(pz.Identity(FM), weights.linear, dreamer), (pz.EulerFlow(FM), weights.uniform, velocity)],
  ids=["Dreamer 4", "Shortcut Models"],
)
def test_the_papers_losses_are_its_cases(f, weight, formula, x):
  def both(x):
    times, eps, _ = drawn(x, f, draw)
    expected = jnp.mean(formula(x, eps, times), where=jnp.broadcast_to(times.active, x.shape))
    given = dict(f=f, weight=weight, sample_times=draw)
    return loss(network, PARAMS, FROZEN, dict(x=x), **given)[0], expected

  draw = dyadic(t_min=0.01)
  with jax.debug_key_reuse(False):
    value, expected = jax.jit(both)(x)
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_the_gradient_is_of_params_alone(x):
  of = lambda *both: loss(network, *both, dict(x=x), weight=rows(True))[0]
  step = jax.jit(jax.value_and_grad(of, (0, 1)))
  with jax.debug_key_reuse(False):
    (value, (of_params, of_frozen)), (other, _) = step(PARAMS, FROZEN), step(PARAMS, PARAMS)
  assert np.isfinite(of_params) and of_params != 0 and of_frozen == 0
  assert value != other, "the frozen network makes the target"


def test_two_streams_jump_in_active_tokens_alone(x):
  def spied(x):
    seen = []

    def spy(params, x, s, t, cond=None, *, rngs, streams):
      assert streams == 2
      seen.append((x, s, t))
      return jnp.where(jnp.arange(10)[None, :, None] < 5, jnp.nan, network(params, x, s, t))

    given = dict(streams=2, sample_times=dyadic(patterns.two_stream, t_max=0.95, t_min=0.05))
    return loss(spy, PARAMS, FROZEN, dict(x=x), **given)[0], seen

  value, seen = jax.jit(spied)(x)
  assert np.isfinite(value)
  for part in zip(*seen, strict=True):
    for a in part:
      np.testing.assert_array_equal(a[:FIRST, :5], part[0][:, :5])
  assert not np.any(seen[0][0][:, 5:] == seen[1][0][:, 5:])


def test_padding_is_not_read_and_has_no_loss(x):
  """Other data there, another bound of one step: the same value and gradient."""
  mask = jnp.arange(5).reshape(1, 5, 1) < 4 + 0 * x[..., :1]
  mask = mask & (jnp.arange(len(x)).reshape(-1, 1, 1) % 2 == 0)
  other = jnp.where(mask, x, 9.0)
  value = lambda x: jax.value_and_grad(lambda p: loss(network, p, FROZEN, dict(x=x, mask=mask))[0])
  found, expected = (jax.jit(value(a))(PARAMS) for a in (other, x))
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert found[0] > 0


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_a_batch_of_one_kind_of_rows_is_refused(share, x):
  with pytest.raises(ValueError, match=f"share={share}: of a batch of {len(x)}"):
    loss(network, PARAMS, FROZEN, dict(x=x), share=share)
