"""Particles: plain double sums, and which mistake each rule can see."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import (
  interpolants,
  kernels,
  mmd,
  parameterization as pz,
  particles,
  prefixes,
  times as times_lib,
)

F = pz.EulerFlow(interpolants.FlowMatching())  # |c_out| = (t - s) / 2
GROUPS, M, TOKENS, DIM = 3, 4, 6, (2, 2)
SIZE = 4
RULES = dict(
  token=particles.token,
  prefix=particles.prefix,
  averaged=functools.partial(particles.prefix, mean=True),
  sequence=particles.sequence,
)


@pytest.fixture(params=RULES)
def name(request):
  return request.param


def terms(c, kernel=kernels.laplace):
  """Each pair's share of MMD^2, `[..., M, M]`."""
  k_yy, k_zz, k_yz = mmd.grams(c.y, c.z, kernel, c.scale)
  return c.similarity * (k_yy + k_zz - 2.0 * k_yz)


def of(x_t, times):
  return prefixes.of_batch(dict(x=x_t), times.streams)


@functools.cache
def compiled(name, **given):
  """MMD^2 of each cloud of a rule."""
  given = dict(group_size=M) | given
  rule = lambda y, z, x_t, times: RULES[name](y, z, of(x_t, times), times.t, times, F, **given)
  return jax.jit(lambda *args: jnp.mean(terms(rule(*args)), axis=(-1, -2)))


def clouds(seed=0):
  rng = np.random.default_rng(seed)
  return tuple(0.5 * rng.normal(size=(GROUPS * M, TOKENS, *DIM)) for _ in range(3))


def some_times(streams=1):
  """Each group its own times and context; the last group's tokens are all context."""
  rng = np.random.default_rng(1)
  t = rng.uniform(0.4, 0.9, (GROUPS, TOKENS))
  active = rng.uniform(size=t.shape) < 0.6
  active[:, -1], active[-1] = True, False
  if streams == 2:
    active[:, : TOKENS // 2] = False
  s = np.where(active, t - rng.uniform(0.1, 0.3, t.shape), t)
  each = lambda a: np.repeat(a, M, axis=0)[..., None, None]
  return times_lib.Times(each(s), each(t), each(t), each(active), streams), s, t, active


def double_sum(y, z, gram, factor):
  """MMD^2 `[...]` of `[..., M, D]` by two loops."""
  m = y.shape[-2]
  total = 0.0
  for j, k in itertools.product(range(m), repeat=2):
    pair = lambda a, b: gram(a[..., j, :] - b[..., k, :])  # noqa: B023
    total += factor[..., j, k] * (pair(y, y) + pair(z, z) - 2 * pair(y, z)) / m**2
  return total


def laplace(difference, scale):
  return np.exp(-scale * np.sqrt(np.maximum(np.sum(difference**2, axis=-1), 1e-8)))


def by_token(a):
  return np.moveaxis(a.reshape(GROUPS, M, TOKENS, SIZE), 1, 2)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize(
  "name,given", [("token", {}), ("prefix", {}), ("averaged", dict(mean=True))]
)
def test_tokens_equal_a_plain_double_sum(name, given, streams, float64):
  y, z, x_t = clouds()
  times, s, t, active = some_times(streams)
  found = compiled(name)(y, z, x_t, times)
  factor = np.ones((GROUPS, TOKENS, M, M))
  if name != "token":
    of_one = prefixes.similarity(of(x_t, times), group_size=M, **given)
    factor = np.tile(of_one, (1, streams, 1, 1))
  scale = np.where(active, 1 / (0.5 * np.where(active, t - s, 1.0) * SIZE), 0.0)
  expected = double_sum(by_token(y), by_token(z), lambda d: laplace(d, scale), factor)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["token", "prefix"])
def test_padding_is_as_a_smaller_group(name):
  """Two of four particles padded: the value of active pairs is that of groups of two."""
  y, z, x_t = clouds()
  times = some_times()[0]
  half = np.arange(GROUPS * M) % M < M // 2
  real = half[:, None, None, None]
  padded = times.replace(
    s=np.where(real, times.s, 1.0), t=np.where(real, times.t, 1.0), active=times.active & real
  )
  sequence = prefixes.of_batch(dict(x=x_t, mask=np.broadcast_to(real, (GROUPS * M, TOKENS, 1, 1))))
  c = RULES[name](y, z, sequence, padded.t, padded, F, group_size=M)
  rows = lambda tree: jax.tree.map(lambda a: a[half], tree)
  few = RULES[name](*rows((y, z, sequence, times.t, times)), F, group_size=M // 2)
  two = (slice(None), slice(None), slice(M // 2), slice(M // 2))
  alone = lambda cloud: np.where(cloud.active, cloud.weight * terms(cloud), 0.0)
  np.testing.assert_allclose(alone(c)[two], alone(few), rtol=1e-6)
  np.testing.assert_array_equal(np.asarray(c.active)[two], few.active)
  assert np.sum(c.active) == np.sum(few.active) > 0


@pytest.mark.parametrize("bandwidth", [0.0, 0.5, 2.0])
def test_sequences_equal_a_plain_double_sum(bandwidth, float64):
  y, z, x_t = clouds()
  times, s, t, active = some_times()
  found = compiled("sequence", inverse_bandwidth=bandwidth)(y, z, x_t, times)
  for g in range(GROUPS):
    parts = [[], []]
    for i in range(TOKENS):
      for part, a in zip(parts, (y, z), strict=True):
        rows = slice(g * M, (g + 1) * M)
        output = a[rows, i].reshape(M, SIZE) / (0.5 * max(t[g, i] - s[g, i], 1e-9))
        fixed = bandwidth * x_t[rows, i].reshape(M, SIZE)
        part.append(output if active[g, i] else fixed)
    counted = SIZE * (TOKENS if bandwidth else max(active[g].sum(), 1))
    gram = lambda d: laplace(d, 1 / counted)  # noqa: B023
    whole = (np.concatenate(part, axis=-1) for part in parts)
    np.testing.assert_allclose(found[g], double_sum(*whole, gram, np.ones((M, M))), atol=1e-12)


def test_weights_and_times_are_of_each_token_or_the_mean_over_active_tokens(name):
  y, z, x_t = clouds()
  times, _, t, active = some_times()
  found = RULES[name](y, z, of(x_t, times), jnp.square(times.t), times, F, group_size=M)
  for a, each in ((found.weight, t**2), (found.t, t)):
    mean = np.sum(each, axis=1, where=active) / np.maximum(active.sum(axis=1), 1)
    expected = mean if name == "sequence" else each
    np.testing.assert_allclose(a, expected[..., None, None], rtol=1e-6)
  expected = active.any(axis=1) if name == "sequence" else active
  found, expected = np.broadcast_arrays(found.active, expected[..., None, None])
  np.testing.assert_array_equal(found, expected)


def test_a_time_that_tokens_share_is_the_time_of_each(name):
  y, z, x_t = clouds()
  times = times_lib.Times(*(np.full((GROUPS * M, 1, 1, 1), u) for u in (0.2, 0.5, 0.6, True)))
  each = jax.tree.map(lambda a: np.repeat(a, TOKENS, axis=1), times)
  shared, of_each = (compiled(name)(y, z, x_t, u) for u in (times, each))
  np.testing.assert_allclose(shared, of_each, rtol=1e-6)


def test_context_is_no_discrepancy_and_has_no_gradient(name):
  y, z, x_t = clouds()
  times, *_, active = some_times()
  found, back = jax.vjp(lambda y: compiled(name)(y, z, x_t, times), jnp.asarray(y, jnp.float32))
  (slope,) = back(jnp.ones_like(found))
  fixed = ~active if found.ndim == 2 else ~active.any(axis=1)
  np.testing.assert_array_equal(np.asarray(found) == 0.0, fixed)
  trained = np.any(np.asarray(slope) != 0.0, axis=(2, 3))
  np.testing.assert_array_equal(trained, np.repeat(active, M, axis=0))


LARGE, LOT = 300, 4  # particles of a group, groups
BLIND_TO_CONTEXT = "sequence without context"
CONDITIONAL = "the distribution given a context that is held fixed"
JOINT = "how tokens that jump together depend on each other"
SEES = {  # what is wrong: the rules that see it, the others being blind to it
  "nothing": (),
  "a marginal distribution": ("token", "prefix", "sequence", BLIND_TO_CONTEXT),
  CONDITIONAL: ("prefix", "sequence"),
  JOINT: ("sequence", BLIND_TO_CONTEXT),
}


def outputs(wrong):
  """`y`, `z` and `x_t` of two tokens of unit variance, the first of which moves for JOINT only."""
  rng = np.random.default_rng(2)
  normal = lambda: rng.normal(size=(LOT * LARGE, 1))
  pair = lambda a, b: np.stack([a, b], axis=1)
  if wrong == JOINT:
    same = normal()
    return pair(normal(), normal()), pair(same, same), pair(normal(), normal())
  x = normal()
  of_x = lambda: 0.9 * x + np.sqrt(1 - 0.9**2) * normal()
  y = normal() if wrong == CONDITIONAL else of_x() + (wrong == "a marginal distribution")
  return pair(x, y), pair(x, of_x()), pair(x, normal())


@pytest.mark.parametrize("wrong", SEES)
def test_each_rule_sees_what_it_is_for(wrong):
  """Two clouds of one distribution differ by 2 (1 - E k) / M, the floor."""
  active = np.ones((LOT * LARGE, 2, 1), bool)
  active[:, 0] = wrong == JOINT
  t = np.where(active, 1.0, 0.1)
  times = times_lib.Times(np.where(active, 0.0, t), t, t, active)
  for rule in ("token", "prefix", "sequence", BLIND_TO_CONTEXT):
    name, given = (rule, {}) if rule in RULES else ("sequence", dict(inverse_bandwidth=0.0))
    found = compiled(name, group_size=LARGE, **given)(*outputs(wrong), times)
    found, floor = np.mean(found if found.ndim == 1 else found[:, 1]), 2.0 / LARGE
    assert (found > 3 * floor) if rule in SEES[wrong] else (found < 1.5 * floor), (rule, found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("t", [0.006 + 2e-5, 0.5, 0.994])
def test_gradients_are_finite_where_particles_meet(name, dtype, t):
  y = jnp.asarray(np.repeat(clouds()[0][::2], 2, axis=0), dtype)
  t = np.full((GROUPS * M, TOKENS, 1, 1), t, np.float32)
  s = t - np.float32(1e-5)
  s[:, 0] = 0.006
  times = times_lib.Times(s, t, t, np.ones_like(t, bool))
  for z in (y, -y):
    found, back = jax.vjp(lambda y_: compiled(name)(y_, z, y, times), y)  # noqa: B023
    (slope,) = back(jnp.ones_like(found))
    assert slope.dtype == dtype
    assert np.all(np.isfinite(found)) and np.all(np.isfinite(np.asarray(slope, np.float32)))


def whole_examples(seed=2):
  """Six images in two groups, each at its own times."""
  rng = np.random.default_rng(seed)
  y, z = (0.5 * rng.normal(size=(6, 2, 2, 1)) for _ in range(2))
  t = rng.uniform(0.3, 0.9, (6, 1, 1, 1))
  s = t * rng.uniform(0.1, 0.9, t.shape)
  return y, z, times_lib.Times(s, t, t, np.ones(t.shape, bool), per_particle_times=True)


def weighted(rule, y, z, times, w, group_size, **given):
  c = getattr(particles, rule)(y, z, None, jnp.asarray(w), times, F, group_size=group_size, **given)
  return jnp.mean(c.weight * terms(c))


per_particle = functools.partial(weighted, "per_particle_times")


def test_per_particle_times_weigh_each_pair_by_the_similarity_of_its_times(float64):
  y, z, times = whole_examples()
  w = np.random.default_rng(3).uniform(0.5, 2.0, (6, 1, 1, 1))
  s, t, weight = (a.reshape(6) for a in (times.s, times.t, w))
  bandwidth, u = 4.0, lambda a: np.log(a + 0.05)
  total = 0.0
  for j, k in itertools.product(range(6), repeat=2):
    unit = 4 * np.sqrt((t - s)[j] / 2 * (t - s)[k] / 2)  # D |c_out|
    pair = lambda a, b: laplace((a[j] - b[k]).reshape(-1), 1 / unit)  # noqa: B023
    far = abs(u(t[j]) - u(t[k])) + abs(u(s[j]) - u(s[k])) / 2
    factor = (j // 3 == k // 3) * np.sqrt(weight[j] * weight[k]) * np.exp(-bandwidth * far)
    total += factor * (pair(y, y) + pair(z, z) - 2 * pair(y, z)) / 6
  found = per_particle(y, z, times, w, 3, inverse_bandwidth=bandwidth)
  np.testing.assert_allclose(found, total, rtol=1e-9)


def test_equal_per_particle_times_are_those_of_examples_and_unlike_ones_of_particles(float64):
  y, z, times = whole_examples()
  shared = jax.tree.map(lambda a: np.repeat(a[::3], 3, axis=0), times)
  w = np.repeat([[1.0], [2.0]], 3, axis=0).reshape(6, 1, 1, 1)
  expected = 3 * weighted("example", y, z, shared.replace(per_particle_times=False), w, 3)
  np.testing.assert_allclose(per_particle(y, z, shared, w, 3), expected, rtol=1e-9)
  expected = weighted("example", y, z, times.replace(per_particle_times=False), w, 1)
  alone = per_particle(y, z, times, w, 3, inverse_bandwidth=1e6)
  np.testing.assert_allclose(alone, expected, rtol=1e-9)


def test_per_particle_times_count_active_pairs_alone():
  y, z, times = whole_examples()
  times = times.replace(active=np.arange(6).reshape(6, 1, 1, 1) != 1)
  c = particles.per_particle_times(y, z, None, times.t, times, F, group_size=3)
  expected = np.ones((2, 3, 3), bool)
  expected[0, 1], expected[0, :, 1] = False, False
  np.testing.assert_array_equal(c.active, expected)
  assert np.all(np.asarray(terms(c))[~expected] == 0.0)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_gradients_of_per_particle_times_are_finite_where_particles_meet(dtype):
  """Every particle twice, y on z, and a jump no longer than the gap."""
  y, _, times = whole_examples()
  y, t = jnp.asarray(np.repeat(y[::2], 2, axis=0), dtype), times.t.astype(np.float32)
  times = times.replace(s=t - np.float32(1e-5), t=t)
  for z in (y, -y):
    slope = jax.grad(lambda y_: jnp.sum(per_particle(y_, z, times, t, 6)))(y)  # noqa: B023
    assert slope.dtype == dtype and np.all(np.isfinite(np.asarray(slope, np.float32)))


@pytest.mark.parametrize(
  "rule, times, given, message",
  [
    ("sequence", some_times(2)[0], {}, "sequence with two streams"),
    ("example", some_times()[0], {}, "particles.example with times of shape"),
    ("example", whole_examples()[2], {}, "per_particle_times=True"),
    ("per_particle_times", whole_examples()[2].replace(per_particle_times=False), {}, "=False"),
    ("per_particle_times", whole_examples()[2], dict(inverse_bandwidth=-1.0), "=-1.0"),
    ("prefix", some_times()[0], dict(bandwidth_multiplier=0.0), "bandwidth_multiplier=0.0"),
  ],
)
def test_times_and_bandwidths_that_a_rule_does_not_take_are_refused(rule, times, given, message):
  with pytest.raises(ValueError, match=message):
    y, z, x_t = clouds()
    getattr(particles, rule)(y, z, of(x_t, times), times.t, times, F, group_size=M, **given)
