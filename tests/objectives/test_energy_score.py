"""Energy score: closed forms of Gaussians, exact expectations, and one pass from pure noise."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dfim.core import interpolants as ip, parameterization as pz, patterns, times as times_lib
from dfim.models.causal_transformer import CausalTransformer
from dfim.objectives import energy_score
from dfim.samplers import jump

FM = ip.FlowMatching()
F = pz.EulerFlow(FM)
whole = functools.partial(times_lib.from_noise, pattern=patterns.example, t_max=1.0, t_min=0.0)
two_stream = functools.partial(
  times_lib.from_noise, pattern=patterns.two_stream, t_max=1.0, t_min=0.0
)


def loss(apply, params, batch, key=0, **changed):
  given = dict(f=F, sample_times=whole)
  return energy_score.loss(apply, params, None, batch, jax.random.key(key), **given | changed)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("m", [2, 3])
def test_the_score_is_unbiased(m, beta, float64):
  """Its mean over all m-tuples of samples from four atoms is the score of their distribution."""
  rng = np.random.default_rng(0)
  atoms, odds, x = rng.normal(size=(4, 3)), np.array([0.1, 0.2, 0.3, 0.4]), rng.normal(size=3)
  rms = lambda a: np.sqrt(np.mean(a**2, axis=-1)) ** beta
  pairs = rms(atoms[:, None] - atoms[None])
  exact = odds @ rms(atoms - x) - 0.5 * odds @ pairs @ odds
  tuples = np.array(list(itertools.product(range(4), repeat=m)))
  y = jnp.moveaxis(jnp.asarray(atoms[tuples]), 1, 0)  # [m, 4^m, 3]
  data = jnp.broadcast_to(x, y.shape[1:])
  active = jnp.ones(data.shape, bool)
  error, spread = energy_score.parts(y, data, active, axes=(1,), beta=beta, floor=0.0)
  found = np.prod(odds[tuples], axis=1) @ (error - 0.5 * spread)
  np.testing.assert_allclose(found, exact, rtol=1e-9)


def gaussian(params, x_in, s, t, cond, *, rngs):
  """The raw output with which a jump from noise e, x_in = e / 0.5, lands on mean + std e / 0.5."""
  landing = params["mean"] + params["std"] * x_in
  return (0.5 * x_in - landing) / 0.5


def closed_form(mean, std):
  """Of samples N(mean, std^2) and data N(0.2, 0.3^2), beta = 1, in units of 0.5."""
  away, both = mean - 0.2, np.hypot(std, 0.3)
  error = 2 * both * scipy.stats.norm.pdf(away / both) + away * (
    2 * scipy.stats.norm.cdf(away / both) - 1
  )
  return (error - std / np.sqrt(np.pi)) / 0.5


def test_the_score_of_gaussians_is_its_closed_form_and_least_at_the_data():
  x = 0.2 + 0.3 * jax.random.normal(jax.random.key(1), (200_000, 1))
  value = jax.jit(lambda mean, std: loss(gaussian, dict(mean=mean, std=std), dict(x=x))[0])
  of = {p: value(*p) for p in itertools.product((0.1, 0.2, 0.3), (0.15, 0.3, 0.45))}
  for p, found in of.items():
    np.testing.assert_allclose(found, closed_form(*p), atol=4e-3)
  assert min(of, key=of.get) == (0.2, 0.3)
  slope = jax.grad(lambda p: loss(gaussian, p, dict(x=x))[0])(dict(mean=0.2, std=0.3))
  assert max(abs(g) for g in slope.values()) < 0.01
  _, metrics = loss(gaussian, dict(mean=0.2, std=0.3), dict(x=x))
  np.testing.assert_allclose(metrics["error"], metrics["spread"], rtol=0.01)


def shifted(params, x, s, t, cond=None, *, streams=2, rngs=None):
  """Each active token is its noise and a multiple of the token before it in the context."""
  context, active = jnp.split(x, 2, axis=1)
  before = jnp.pad(context, ((0, 0), (1, 0), (0, 0)))[:, :-1]
  target = params["slope"] * 0.5 * before + params["std"] * active
  return jnp.concatenate([context, active - target / 0.5], axis=1)


def test_with_two_streams_the_score_is_least_at_the_conditional_distribution():
  """x2 = 0.8 x1 + 0.3 e: marginally right samples without the slope score worse."""
  one, e = jax.random.normal(jax.random.key(2), (2, 100_000, 1, 1))
  x = jnp.concatenate([0.5 * one, 0.4 * one + 0.3 * e], axis=1)
  given = dict(sample_times=two_stream, streams=2)
  value = jax.jit(lambda p: loss(shifted, p, dict(x=x), **given)[0])
  std = jnp.array([0.5, 0.3]).reshape(1, 2, 1)
  right, off = value(dict(slope=0.8, std=std)), value(dict(slope=0.6, std=std))
  marginal = value(dict(slope=0.0, std=jnp.full_like(std, 0.5)))
  assert right < off < marginal
  slope = jax.grad(lambda p: loss(shifted, p, dict(x=x), **given)[0])(dict(slope=0.8, std=std))
  assert all(np.max(np.abs(g)) < 0.01 for g in slope.values())


def test_active_tokens_start_as_noise_of_their_own_after_a_context_that_all_samples_share():
  """And the jump is the one that a sampler of one step takes."""
  seen = []

  def spy(params, x, s, t, cond=None, *, streams, rngs):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
    np.testing.assert_array_equal(s, jnp.zeros_like(s))
    return params * x

  x = jax.random.normal(jax.random.key(3), (4, 3, 2))
  loss(spy, 1.0, dict(x=x), samples=3, sample_times=two_stream, streams=2)
  jax.effects_barrier()
  starts = np.stack(seen)
  assert len(starts) == 3
  np.testing.assert_allclose(0.5 * starts[:, :, :3], np.tile(x, (3, 1, 1, 1)), rtol=1e-6)
  noise = starts[:, :, 3:]
  assert len(np.unique(noise)) == noise.size and abs(noise.std() - 1.0) < 0.2
  other = jax.random.normal(jax.random.key(4), x.shape)
  loss(spy, 1.0, dict(x=other), samples=3, sample_times=two_stream, streams=2)
  jax.effects_barrier()
  np.testing.assert_array_equal(np.stack(seen)[3:, :, 3:], noise)


@pytest.mark.parametrize("f", [F, pz.Identity(FM), pz.SimpleEDM(ip.Cosine())], ids=repr)
def test_one_step_of_the_sampler_is_the_jump_that_is_scored(f, key):
  net = lambda params, x, s, t, cond: params * jnp.tanh(x + s - t)
  x = 0.5 * jax.random.normal(key, (5, 3))
  ends = jnp.array([1.0, 0.0])
  model = jump.of_network(net, 0.7, f)
  found = jump.scan(model, key, x, ends, step=jump.Pushforward())
  expected = f(net, 0.7, x, jnp.zeros((5, 1)), jnp.ones((5, 1)))
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_array_equal(f.c_skip(*ends[::-1]), 1.0 if f is F else 0.0)


def value_and_slope(streams):
  net, x = CausalTransformer(16, 1, 2), np.random.default_rng(0).normal(size=(3, 6, 2))
  t = np.ones((3, 6, 1))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, t)
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.3, p.shape), jnp.float32), shapes)
  times = two_stream if streams == 2 else whole
  value = lambda p, batch: loss(net.apply, p, batch, sample_times=times, streams=streams)[0]
  return x, jax.jit(functools.partial(jax.value_and_grad(value), params))


@pytest.mark.parametrize("streams", [1, 2])
def test_the_loss_is_the_same_bits_whatever_is_in_the_padding(streams):
  x, of = value_and_slope(streams)
  mask = (np.arange(6)[None] < np.array([6, 2, 0])[:, None])[..., None]
  expected = of(dict(x=x, mask=mask))
  assert all(np.isfinite(a).all() for a in jax.tree.leaves(expected))
  for fill in (np.nan, 3e38):
    found = of(dict(x=np.where(mask, x, fill), mask=mask))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert of(dict(x=x + 0.1, mask=mask))[0] != expected[0]
  value, slope = of(dict(x=x, mask=np.zeros_like(mask)))
  assert value == 0.0 and not any(np.any(g) for g in jax.tree.leaves(slope))


def test_a_sample_that_meets_another_or_the_datum_has_a_finite_gradient():
  stay = lambda params, x, s, t, cond, *, rngs: x + params  # lands on -params / 2
  value, slope = jax.value_and_grad(lambda p: loss(stay, p, dict(x=jnp.zeros((4, 2))))[0])(0.0)
  assert np.isfinite(value) and slope == 0.0


@pytest.mark.parametrize("field, value", [("samples", 1), ("beta", 0.0), ("beta", 2.0)])
def test_scores_that_are_not_strictly_proper_are_refused(field, value):
  with pytest.raises(ValueError, match=f"^{field}={value}"):
    loss(gaussian, None, dict(x=jnp.ones((4, 1))), **{field: value})
