"""Why the prefix must be held fixed, in closed form: docs/moment_forcing.md.

Two tokens of unit variance and correlation RHO on the straight path; all is Gaussian, every map
linear, and the frozen network perfect. The first token is the prefix of the second.
"""

import jax
import numpy as np
import pytest

from dfim.core import (
  interpolants,
  kernels,
  mmd,
  parameterization as pz,
  particles,
  posterior,
  prefixes,
  scales as scales_lib,
  times as times_lib,
)

RHO, S = 0.9, 0.05
PREFIX_LEVELS = [0.0, 0.1, 0.5, 0.9, 0.994]


def covariance(t, u, fresh=False):
  """Of the two tokens at levels `t` with the same two at levels `u`: `[2, 2]`.

  They have the noise in common; or the prefix has gone from `u` up to `t` by `fresh` noise.
  """
  t, u = np.asarray(t), np.asarray(u)
  noise = t * u
  if fresh:
    noise[0] = (1 - t[0]) / (1 - u[0]) * u[0] ** 2
  return (1 - t)[:, None] * [[1, RHO], [RHO, 1]] * (1 - u) + np.diag(noise)


def given_prefix(w, at, t, fresh=False):
  """Slope and variance of `w . x_at` given the first token of x_t."""
  variance, with_prefix = covariance(t, t)[0, 0], w @ covariance(t, at, fresh)[0]
  slope = with_prefix / variance
  return slope, w @ covariance(at, at) @ w - with_prefix * slope


def pushed(w, r, t, fresh=False):
  """The linear jump from x_t whose distribution given its prefix is the target's, `w . x_r`."""
  slope, variance = given_prefix(w, r, t, fresh)
  slope_t, variance_t = given_prefix(np.array([0.0, 1.0]), t, t)
  gain = np.sqrt(variance / variance_t)
  return np.array([slope - gain * slope_t, gain])


def perfect(s, u, r):
  """The jump of token 2 from r to s that is right given a prefix at level u."""
  return pushed(np.array([0.0, 1.0]), (u, s), (u, r))


def clean_slope(slope, u):
  """A slope on x_u of the prefix, on the prefix's clean estimate E[x^1 | x_u^1] instead."""
  return slope * ((1 - u) ** 2 + u**2) / (1 - u)


@pytest.mark.parametrize("u", PREFIX_LEVELS)
def test_a_fixed_prefix_leaves_the_distribution_of_the_target_exact(u):
  """At every level: 0.855 = (1 - s) RHO on the clean estimate, and the right spread."""
  slope, variance = given_prefix(perfect(S, u, 0.6), (u, 0.6), (u, 0.65))
  with_prefix, power = (1 - S) * RHO * (1 - u), (1 - u) ** 2 + u**2
  np.testing.assert_allclose(slope, with_prefix / power, rtol=1e-12)
  np.testing.assert_allclose(clean_slope(slope, u), 0.855, rtol=1e-12)
  np.testing.assert_allclose(variance, (1 - S) ** 2 + S**2 - with_prefix**2 / power, rtol=1e-12)


def test_moving_prefix_steepens_the_target():
  """The prefix's x_t has information on x that x_r has not: from 0.5 to 0.45, 0.898 for 0.855."""
  slope, variance = given_prefix(perfect(S, 0.45, 0.6), (0.45, 0.6), (0.5, 0.65))
  np.testing.assert_allclose(clean_slope(slope, 0.5), 0.898, atol=5e-4)
  np.testing.assert_allclose(slope, 0.898, atol=5e-4)  # at 0.5 the estimate is x_t itself
  _, right = given_prefix(np.array([0.0, 1.0]), (0.5, S), (0.5, 0.65))
  assert variance < 0.99 * right


def induction(prefix_moves, steps=425, fresh=False):
  """Slope on x_t of the prefix after token 2 has gone from s to t = 0.9 in equal steps."""
  w, levels = np.array([0.0, 1.0]), np.linspace(S, 0.9, steps + 1)
  at = lambda u: (u if prefix_moves else 0.9, u)
  for r, t in zip(levels[:-1], levels[1:], strict=True):
    w = pushed(w, at(r), at(t), fresh)
  return given_prefix(w, at(0.9), at(0.9))[0]


def test_induction_is_exact_with_a_fixed_prefix_and_far_off_with_a_moving_one():
  """Both tokens jump together, in steps of 0.002: 0.558 for 0.104; no step is small enough.

  With fresh noise a moving prefix is exact: x_t has no information that x_r has not.
  """
  np.testing.assert_allclose(induction(False), (1 - S) * RHO * 0.1 / 0.82, rtol=1e-9)
  np.testing.assert_allclose(induction(False), 0.104, atol=5e-4)
  np.testing.assert_allclose(induction(True), 0.558, atol=5e-4)
  np.testing.assert_allclose(induction(True, steps=8500), 0.560, atol=5e-4)
  np.testing.assert_allclose(induction(True, fresh=True), induction(False), rtol=1e-9)


CORRELATIONS = np.array([[1, 0.3, 0.5], [0.3, 1, RHO], [0.5, RHO, 1]])  # condition, tokens 1, 2


def jump_given(known, w, r, t):
  """The linear jump from (condition, x_t^1, x_t^2) whose distribution given `known` is `w . x_r`'s.

  `r` and `t` are levels of the two tokens; the condition has none. Its slopes, and what is left.
  """

  def moments(a, b):
    a, b = np.array([0.0, *a]), np.array([0.0, *b])
    return (1 - a)[:, None] * CORRELATIONS * (1 - b) + np.diag(a * b)

  def given(w, at):
    cross = (w @ moments(at, t))[known]
    slopes = np.linalg.solve(moments(t, t)[np.ix_(known, known)], cross)
    return slopes, w @ moments(at, at) @ w - cross @ slopes

  slopes, variance = given(w, r)
  slopes_t, variance_t = given(np.array([0.0, 0.0, 1.0]), t)
  gain = np.sqrt(variance / variance_t)
  found = np.array([0.0, 0.0, gain])
  found[known] = slopes - gain * slopes_t
  return found, given(found, t)


@pytest.mark.parametrize("known, left", [([0, 1], None), ([1], 0), ([0], 1)])
def test_the_induction_is_exact_given_the_condition_and_a_prefix_that_is_fixed(known, left):
  """Token 2 from 0.05 to 0.9, given the condition and token 1 at 0.4, or one of the two.

  Slopes and spread end at those of x_s^2; what is left out of the prefix has no slope of its own.
  """
  w, levels, u = np.array([0.0, 0.0, 1.0]), np.linspace(S, 0.9, 200), 0.4
  for r, t in zip(levels[:-1], levels[1:], strict=True):
    w, (slopes, variance) = jump_given(known, w, (u, r), (u, t))
  scale = np.array([1.0, 1 - u])[known]
  of_known = scale[:, None] * CORRELATIONS[np.ix_(known, known)] * scale
  of_known += np.diag(np.array([0.0, u**2])[known])
  cross = (1 - S) * scale * CORRELATIONS[2, known]
  right = np.linalg.solve(of_known, cross)
  np.testing.assert_allclose(slopes, right, rtol=1e-9)
  np.testing.assert_allclose(variance, (1 - S) ** 2 + S**2 - cross @ right, rtol=1e-9)
  assert left is None or w[left] == 0.0


GRID = np.linspace(-6.0, 6.0, 241)  # of the prefix, standard normal
DENSITY = np.exp(-(GRID**2) / 2) / np.sum(np.exp(-(GRID**2) / 2))


MEDIAN_BANDWIDTH = 1.0 / (2.0**0.5 * 0.67449)  # of |x - x'|, two standard normal numbers


def prefix_mmd2(a, b, inverse_bandwidth):
  """Of N(a x, 1 - a^2) and N(b x, 1 - b^2) given x, Gaussian kernel, by quadrature."""
  factor = np.exp(-inverse_bandwidth * np.abs(GRID[:, None] - GRID[None]))

  def mean(a, b):
    shift = a * GRID[:, None] - b * GRID[None]
    width = 1.0 + (1 - a**2) + (1 - b**2)
    return DENSITY @ (factor * np.exp(-(shift**2) / (2 * width)) / np.sqrt(width)) @ DENSITY

  return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def sequence_mmd2(a, b):
  """Of two pairs of unit variance and correlations a, b, Gaussian kernel, in closed form."""
  mean = lambda c: 1.0 / np.sqrt(np.linalg.det(np.eye(2) + 0.5 * c))
  pair = lambda a, b: np.array([[2.0, a + b], [a + b, 2.0]])
  return mean(pair(a, a)) + mean(pair(b, b)) - 2 * mean(pair(a, b))


@pytest.mark.parametrize("rule", ["prefix", "sequence"])
def test_the_rules_tend_to_their_population_values(rule):
  """1,500 particles; a cloud's diagonal adds less than 2 / 1,500."""
  rng, size = np.random.default_rng(0), 1500
  x = rng.normal(size=(2, size)) if rule == "sequence" else np.tile(rng.normal(size=size), (2, 1))
  second = lambda a, x: a * x + np.sqrt(1 - a**2) * rng.normal(size=size)
  y, z = (
    np.stack([x, second(a, x)], axis=1)[..., None] for a, x in zip((-0.5, RHO), x, strict=True)
  )
  active = np.array([rule == "sequence", True])[None, :, None] & np.ones((size, 1, 1), bool)
  t = active.astype(float)
  times = times_lib.Times(np.zeros_like(t), t, t, active)
  f = pz.EulerFlow(interpolants.FlowMatching(), sigma_data=1.0)  # |c_out| = t - s = 1
  given = prefixes.of_batch(dict(x=y))
  c = getattr(particles, rule)(y, z, given, times.t, times, f, group_size=size)
  k_yy, k_zz, k_yz = mmd.grams(c.y, c.z, kernels.rbf, c.scale)
  found = np.mean(c.similarity * (k_yy + k_zz - 2.0 * k_yz), axis=(-1, -2)).ravel()[-1]
  expected = (
    prefix_mmd2(-0.5, RHO, MEDIAN_BANDWIDTH) if rule == "prefix" else sequence_mmd2(-0.5, RHO)
  )
  assert abs(found - expected) < 2 / size + 0.05 * expected


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_a_condition_is_what_a_token_is_conditioned_on(kind, padded):
  """The value of the test above with the condition in the first token's place, that with padding.

  A rule that is blind to it sees two equal marginal distributions.
  """
  rng, size = np.random.default_rng(1), 2000
  cond = rng.normal(size=size)
  real = (rng.uniform(size=size) < 0.5) | ~np.array(padded)
  of_cond = lambda a: a * cond + np.sqrt(1 - a**2) * rng.normal(size=size)
  y, z = (np.where(real, of_cond(a), 0.0)[:, None, None] for a in (-0.5, RHO))
  active = real[:, None, None]
  s, t = np.zeros((size, 1, 1)), np.ones((size, 1, 1))
  times = times_lib.Times(s, t, t, active)
  f = pz.EulerFlow(interpolants.FlowMatching(), sigma_data=1.0)
  vectors = cond[:, None] if kind == "sequence" else cond[:, None, None]
  vectors = np.where(active if vectors.ndim == 3 else real[:, None], vectors, 0.0)
  given = prefixes.of_batch(dict(x=0 * y, cond=dict(goal=vectors), mask=active))
  found = {}
  for rule in ("prefix", "token"):
    c = getattr(particles, rule)(y, z, given, t, times, f, group_size=size)
    k_yy, k_zz, k_yz = mmd.grams(c.y, c.z, kernels.rbf, c.scale)
    terms = np.broadcast_to(c.similarity * (k_yy + k_zz - 2.0 * k_yz), (1, 1, size, size))
    found[rule] = np.mean(terms[np.broadcast_to(c.active, terms.shape)])
  floor, expected = 2 / np.sum(real), prefix_mmd2(-0.5, RHO, MEDIAN_BANDWIDTH)
  assert abs(found["prefix"] - expected) < floor + 0.05 * expected
  assert found["token"] < 1.5 * floor


def conditional_mean(x_t, t, w, variance, *known):
  """E[x | x_t, known] of x = w . known + N(0, variance) on the straight path, unit noise."""
  prior = sum(a * b for a, b in zip(w, known, strict=True))
  gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
  return prior + gain * (x_t - (1 - t) * prior)


@pytest.mark.parametrize("padded", [False, True])
def test_the_posterior_mean_is_given_the_condition_too(padded):
  """Token 2 is 0.6 token 1 + 0.7 condition + noise; in closed form, over 4,000 sequences.

  Where the condition does not count it is E[x | x_t, token 1]. Padded sequences hold other data.
  """
  rng, size, seen, t = np.random.default_rng(2), 4000, 300, 0.7
  first, goal = rng.normal(size=(2, size))
  noise = (1 - 0.6**2 - 0.7**2) ** 0.5
  second = 0.6 * first + 0.7 * goal + noise * rng.normal(size=size)
  real = (rng.uniform(size=size) < 0.6) | ~np.array(padded) | (np.arange(size) < seen)
  second = np.where(real, second, 5.0)
  x = np.stack([first, second], axis=1)[..., None]
  mask = np.stack([np.ones(size, bool), real], axis=1)[..., None]
  whole = dict(x=x, mask=mask, cond=dict(goal=goal[:, None]))
  rows = jax.tree.map(lambda a: a[:seen], whole)
  twice = np.concatenate([x, x], axis=1)
  at = np.concatenate([np.zeros((seen, 2, 1)), np.full((seen, 2, 1), t)], axis=1)
  times = times_lib.Times(0 * at, at, at, at > 0)
  eps = rng.normal(size=at.shape)
  x_t = (1 - at) * twice[:seen] + at * eps
  of = prefixes.of_batch
  f = pz.SimpleEDM(interpolants.FlowMatching(), sigma_data=1.0)
  unit = dict(x=1.0, **{"cond.goal": 1.0})
  scale = scales_lib.Scales(unit, (1.0, 1.0), (30.0, 30.0), (1.0, 1.0))
  errors = []
  for conditioned in (np.ones(seen, bool), np.zeros(seen, bool)):
    reference = posterior.Reference(twice, of(whole), of(rows), conditioned)
    found, _ = posterior.minibatch_mean(twice[:seen], eps, x_t, times, f, reference, scale)
    known = (x_t[:, 3, 0], t, (0.6, 0.7), noise**2, first[:seen], goal[:seen])
    blind = (x_t[:, 3, 0], t, (0.6,), noise**2 + 0.7**2, first[:seen])
    at_t = [conditional_mean(*given) for given in (known, blind)]
    errors.append([np.sqrt(np.mean((found[:, 3, 0] - exact) ** 2)) for exact in at_t])
  (right, wrong), (wrong_too, right_too) = errors
  assert right < 0.5 * wrong and right_too < 0.5 * wrong_too
  assert right < 0.3 and right_too < 0.3
