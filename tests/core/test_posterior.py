"""The posterior mean: closed forms, a plain loop, and the flow that it carries."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import (
  interpolants,
  parameterization,
  posterior,
  prefixes,
  scales as scales_lib,
  times as times_lib,
)

F = parameterization.SimpleEDM(path=interpolants.FlowMatching(), sigma_data=0.5)


def scales(inverse_bandwidth, tokens, discount=1.0, **units):
  each = lambda value: (float(value),) * tokens
  units = dict(x=1.0) | {f"cond.{name}": unit for name, unit in units.items()}
  return scales_lib.Scales(units, each(discount), each(inverse_bandwidth), each(1.0))


def reference(whole, x, conditioned=True, **others):
  """Of batches of two streams; `others` are parts of the whole batch, the rows seen its first."""
  batch = dict(x=whole, **others)
  of = lambda batch: prefixes.of_batch(batch, streams=2)
  seen = jax.tree.map(lambda a: a[: len(x)], batch)
  return posterior.Reference(whole, of(batch), of(seen), conditioned)


def mean(x, eps, x_t, times, whole=None, *, inverse_bandwidth=1.0, discount=1.0, **others):
  """`minibatch_mean` over `whole`, by default the batch itself."""
  given = reference(x if whole is None else whole, x, **others)
  scale = scales(inverse_bandwidth, x.shape[1] // 2, discount)
  return posterior.minibatch_mean(x, eps, x_t, times, F, given, scale)


def noised(x, t, *, active=True, key=None):
  """A rule's arguments: two streams of `x` `[B, T, D]` with clean context, the second at t."""
  both = jnp.concatenate([x, x], axis=1)
  at = jnp.concatenate([jnp.zeros(x.shape[1]), jnp.broadcast_to(t, x.shape[1])])
  at = jnp.broadcast_to(at[None, :, None], (len(x), 2 * x.shape[1], 1))
  active = (at > 0.0) & active
  eps = 0.5 * jax.random.normal(jax.random.key(1) if key is None else key, both.shape)
  x_t = interpolants.interpolate(F.path, both, eps, at)
  return both, eps, x_t, times_lib.Times(s=0 * at, r=at, t=at, active=active)


def test_the_mean_equals_a_plain_loop():
  """A plain loop: times by example and token, three tokens of two numbers, a larger batch."""
  rng = np.random.default_rng(3)
  whole, x_t = (rng.normal(0, 0.5, (n, 6, 2)).astype(np.float32) for n in (9, 6))
  whole[:, :3] = whole[:, 3:]
  x = whole[:6]
  t = rng.uniform(0.3, 0.9, (6, 6, 1)).astype(np.float32)
  times = times_lib.Times(s=0 * t, r=t, t=t, active=np.arange(6).reshape(1, 6, 1) > 2)
  found, _ = mean(x, 0 * x, x_t, times, whole, inverse_bandwidth=1.5, discount=0.5)
  for j, i in itertools.product(range(6), range(3)):
    at = t[j, 3 + i, 0]
    far = np.sum((x_t[j, 3 + i] - (1 - at) * whole[:, 3 + i]) ** 2, axis=-1) / (0.5 * at) ** 2
    before = np.linalg.norm(x[j, :i] - whole[:, :i], axis=-1)
    before = before @ 0.5 ** np.arange(i)[::-1]  # the latest counts whole
    weights = np.exp(-far / 2 - 1.5 * before)
    expected = weights @ whole[:, 3 + i] / np.sum(weights)
    np.testing.assert_allclose(found[j, 3 + i], expected, rtol=1e-4, atol=1e-5)


def test_x_r_of_gaussian_data_is_a_step_of_their_flow():
  """In closed form: the mean is x_t alpha / (alpha^2 + sigma^2), and its x_r hardly scatters."""
  given = noised(0.5 * jax.random.normal(jax.random.key(0), (2000, 1, 1)), 0.6)
  x_t = given[2][:, 1, 0]
  shrunk = 0.4 / (0.4**2 + 0.6**2)
  expected = (0.7 * shrunk + 0.3 * (1.0 - 0.4 * shrunk) / 0.6) * x_t

  def off(rule):
    pair = rule(*given, F, reference(given[0], given[0]), scales(1.0, 1))
    x_r = interpolants.interpolate(F.path, *pair, jnp.asarray(0.3))[:, 1, 0]
    return jnp.sqrt(jnp.mean(jnp.square(x_r - expected)))

  assert off(posterior.minibatch_mean) < 0.15 * off(posterior.conditional)


def carried(x, eps, x_t, times, steps, end, whole=None):
  """`x_t` taken from its time down to `end`, step by step, each towards the mean of `whole`."""
  levels = jnp.linspace(times.t[0, -1, 0], end, steps + 1)
  for t, r in itertools.pairwise(levels):
    t, r = (jnp.where(times.active, u, 0.0) for u in (t, r))
    at = times.replace(r=r, t=t)
    datum, _ = mean(x, eps, x_t, at, whole)
    x_t = interpolants.ddim(F.path, x_t, datum, r, jnp.maximum(t, 1e-6))
  return x_t[:, 1, 0]


def test_the_error_of_the_steps_is_of_second_order():
  """Data at -1 and 1: twice the steps, a quarter of the error."""
  given = noised(jnp.tile(jnp.array([-1.0, 1.0]), 32).reshape(64, 1, 1), 0.9)
  exact = carried(*given, 128, 0.3)
  off = [float(jnp.max(jnp.abs(carried(*given, n, 0.3) - exact))) for n in (8, 16, 32)]
  assert 3.0 < off[0] / off[1] < 5.5 and 3.0 < off[1] / off[2] < 5.5


@pytest.mark.parametrize("size, of", [(1, 1), (2, 2), (16, 16), (1, 4), (4, 16)])
def test_the_distribution_is_carried_down_whatever_the_size_of_the_batch(size, of):
  """Gaussian data of the deviation 0.5, which x_t has at t = 0.5 times the root of 0.5."""

  def drawn(key):
    whole = 0.5 * jax.random.normal(key, (of, 1, 1))
    given = noised(whole[:size], 0.95, key=jax.random.fold_in(key, 1))
    return carried(*given, 16, 0.5, whole=jnp.concatenate([whole, whole], axis=1))

  found = jax.vmap(drawn)(jax.random.split(jax.random.key(0), 64_000 // size))
  np.testing.assert_allclose(jnp.std(found), 0.5 * 0.5**0.5, rtol=0.012)


def test_context_keeps_its_datum_and_x_t_is_on_the_path_of_the_result():
  given = noised(jax.random.normal(jax.random.key(0), (16, 2, 2)), 0.8)
  datum, noise = mean(*given)
  np.testing.assert_array_equal(datum[:, :2], given[0][:, :2])
  np.testing.assert_array_equal(noise[:, :2], given[1][:, :2])
  assert np.all(np.any(datum[:, 2:] != given[0][:, 2:], axis=-1))
  fixed = noised(given[0][:, :2], 0.8, active=False)
  datum, _ = mean(*fixed)
  np.testing.assert_array_equal(datum, fixed[0])
  given = noised(jax.random.normal(jax.random.key(0), (32, 3, 2)), jnp.array([0.2, 0.5, 0.9]))
  pair = mean(*given, inverse_bandwidth=5.0)
  back = interpolants.interpolate(F.path, *pair, given[3].t)
  np.testing.assert_allclose(back, given[2], atol=1e-5)


def test_examples_of_other_conditions_and_padding_count_little_or_nothing():
  """Two labels: with a wide kernel the mean is over both, with a narrow one over its own."""
  rng = np.random.default_rng(0)
  label = np.arange(64) % 2
  x = jnp.asarray(np.where(label, 1.0, -1.0)[:, None, None] + 0.1 * rng.normal(size=(64, 2, 1)))
  given = noised(x, 1.0)
  cond = dict(label=jnp.asarray(label))
  found = lambda **how: np.asarray(mean(*given, **how)[0][:, 2, 0])
  wide, narrow = (found(inverse_bandwidth=b, cond=cond) for b in (0.0, 20.0))
  assert np.all(np.abs(wide) < 0.1)
  np.testing.assert_allclose(narrow, np.where(label, 1.0, -1.0), atol=0.1)
  unseen = found(inverse_bandwidth=20.0, cond=cond, conditioned=jnp.arange(64) < 32)
  np.testing.assert_array_equal(unseen[:32], narrow[:32])
  assert np.all(np.abs(unseen[32:]) < 0.1), "without a condition the mean is over all"
  real = np.repeat(label[:, None, None] == 1, 4, axis=1)
  padded = found(inverse_bandwidth=0.0, mask=jnp.asarray(real))
  np.testing.assert_allclose(padded, 1.0, atol=0.1)
