"""Training times: order, spread, groups, and the gap that keeps kernels finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dfim.core import interpolants, mappings, patterns, times

PATH = interpolants.FlowMatching()
ENDS = dict(t_max=0.994, t_min=0.006)
sample = functools.partial(times.sample, path=PATH, pattern=patterns.example, **ENDS)


def test_the_mean_is_over_active_values_and_0_of_none():
  values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
  active = values > 0.3
  expected = sum(values[active].tolist()) / active.sum()
  poisoned = jnp.where(active, values, jnp.nan)
  np.testing.assert_allclose(times.mean_of_active(poisoned, active), expected, rtol=1e-6)
  none = lambda a: times.mean_of_active(a, jnp.zeros((4, 5), bool))
  value, slope = jax.value_and_grad(none)(values)
  assert value == 0.0 and not jnp.any(slope)


@pytest.mark.parametrize("levels", [10, 1000])
def test_a_discrete_path_is_trained_at_its_levels(levels, key):
  path = interpolants.DiscreteVP("cosine", levels)
  drawn = sample(key, (50_000, 1), path=path, t_max=1.0, t_min=0.0)
  index = np.asarray(drawn.t) * levels - 1
  np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
  counts = np.bincount(np.rint(index[:, 0]).astype(int), minlength=levels)
  assert len(counts) == levels  # 0 .. levels - 1, each as often
  for count in (counts[0], counts[-1]):
    assert abs(count - 50_000 / levels) < 6 * np.sqrt(50_000 / levels)
  levels_themselves = jnp.arange(levels + 1) / levels
  np.testing.assert_allclose(path.snap(levels_themselves), levels_themselves, rtol=1e-6)


@pytest.mark.parametrize("per_particle_times", [False, True])
def test_a_group_is_consecutive_examples_of_one_time_or_of_times_of_their_own(
  per_particle_times, key
):
  mapping = functools.partial(mappings.log_snr_decrement, k=8.0)
  given = dict(group_size=4, mapping=mapping, per_particle_times=per_particle_times)
  drawn = sample(key, (12, 2), **given)
  assert drawn.per_particle_times == per_particle_times
  for a in (drawn.s, drawn.r, drawn.t):
    groups = np.asarray(a).reshape(3, 4)
    assert len(np.unique(groups)) == (12 if per_particle_times else 3)
    assert per_particle_times or np.all(groups == groups[:, :1])


@pytest.mark.parametrize("gap", [1e-5, 1e-3])
def test_active_times_are_never_closer_than_the_gap(gap, key):
  """10^7 draws: without the gap, float32 gives s = t about twice here, and the loss is NaN."""
  draw = jax.jit(lambda k: sample(k, (10**6, 1), gap=gap))
  for k in jax.random.split(key, 10):
    drawn = draw(k)
    assert jnp.min(drawn.t - drawn.s) >= jnp.float32(gap)
    assert jnp.min(drawn.s) >= jnp.float32(ENDS["t_min"])


def test_t_and_s_are_uniform_and_r_is_t_without_a_mapping(key):
  drawn = sample(key, (100_000, 1))
  t = (drawn.t - 0.006) / (0.994 - 0.006)
  s = (drawn.s - 0.006) / (drawn.t - 0.006)
  for u in (t, s):
    quantiles = jnp.quantile(u, jnp.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(quantiles, np.linspace(0.1, 0.9, 9), atol=0.01)
  np.testing.assert_array_equal(drawn.r, drawn.t)


@pytest.mark.parametrize("ends", [ENDS, dict(t_max=1.0, t_min=0.0)], ids=["inside", "whole"])
@pytest.mark.parametrize("path", [PATH, interpolants.Cosine()], ids=repr)
@pytest.mark.parametrize("mean, std", [(-1.1, 2.0), (0.4, 0.5)])
def test_log_normal_times_have_the_quantiles_of_a_truncated_normal_in_log_eta(
  mean, std, path, ends, key
):
  shape = functools.partial(times.log_normal, mean=mean, std=std)
  drawn = sample(key, (100_000, 1), path=path, distribution=shape, **ends)
  assert ends["t_min"] <= jnp.min(drawn.t) and jnp.max(drawn.t) <= np.float32(ends["t_max"])
  ninths = np.linspace(0.1, 0.9, 9)
  log_eta = jnp.log(interpolants.eta(path, jnp.asarray([ends["t_min"], ends["t_max"]])))
  exact = scipy.stats.truncnorm(*(np.asarray(log_eta) - mean) / std, mean, std).ppf(ninths)
  found = jnp.log(interpolants.eta(path, jnp.quantile(drawn.t, ninths)))
  np.testing.assert_allclose(found, exact, atol=0.03 * std)


def test_a_distribution_leaves_the_context_where_its_pattern_has_it(key):
  given = dict(pattern=functools.partial(patterns.two_stream, noisy=0.5))
  with jax.debug_key_reuse(False):
    uniform, skewed = (
      sample(key, (64, 6, 2), **given, distribution=d) for d in (None, times.log_normal)
    )
  np.testing.assert_array_equal(uniform.t[:, :3], skewed.t[:, :3])
  assert np.all(uniform.t[:, 3:] != skewed.t[:, 3:])
  np.testing.assert_array_equal(uniform.active, skewed.active)


@pytest.mark.parametrize("rate", [0.3, 1.0])  # 1: the consistency model
def test_a_share_of_s_lies_on_t_min(rate, key):
  at_end = sample(key, (10_000, 1), p_endpoint=rate).s == jnp.float32(0.006)
  assert abs(jnp.mean(at_end) - rate) <= (0.02 if rate < 1 else 0)


def test_a_share_of_the_jumps_is_the_base_of_the_induction(key):
  mapping = functools.partial(mappings.log_snr_decrement, k=6.0)
  drawn = sample(key, (10_000, 1), mapping=mapping, p_one_step=0.3, p_endpoint=0.5)
  one_step = mapping(PATH, jnp.full_like(drawn.t, 0.006), drawn.t, **ENDS)
  free = drawn.s != jnp.float32(0.006)
  base = free & (drawn.s == one_step) & (drawn.r == drawn.s)
  assert abs(jnp.sum(base) / jnp.sum(free) - 0.3) < 0.02


@pytest.mark.parametrize("p_endpoint", [0.0, 1.0])
def test_reach_bounds_the_length_of_a_jump(p_endpoint, key):
  drawn = sample(key, (10_000, 1), reach=jnp.float32(0.1), p_endpoint=p_endpoint)
  length = drawn.t - drawn.s
  assert 0.099 < jnp.max(length) <= 0.1 + 1e-6


def dyadic(key, shape=(4096, 6, 2), *, pattern=patterns.token, bootstrapped=1024, finest=8, **ends):
  given = dict(pattern=pattern, bootstrapped=bootstrapped, finest=finest)
  return times.dyadic(key, shape, path=PATH, **given, **{**ENDS, **ends})


@pytest.mark.parametrize(
  "draw, wrong, field",
  [
    (sample, dict(t_max=0.1, t_min=0.2), "t_min=0.2"),
    (sample, dict(p_one_step=0.5), "p_one_step=0.5: there is no r"),
    (sample, dict(gap=0.0), "gap=0.0"),
    (sample, dict(group_size=3), "group_size=3"),
    (dyadic, dict(t_max=1.2), "t_min=0.006"),
    (dyadic, dict(finest=3), "finest=3"),
  ],
)
def test_wrong_fields_are_named(draw, wrong, field, key):
  with pytest.raises(ValueError, match=f"^{field}"):
    draw(key, (8, 1), **wrong)


def dyadic_rows(drawn, rows, t_max, t_min):
  """Number of steps and number of the step, `[N]` each, and r's place between s and t."""
  s, r, t = (np.asarray(u[rows], np.float64).ravel() for u in (drawn.s, drawn.r, drawn.t))
  steps = (t_max - t_min) / (t - s)
  return steps, (t - t_min) / (t - s), (r - s) / (t - s)


@pytest.mark.parametrize("ends", [ENDS, dict(t_max=1.0, t_min=0.0)], ids=["inside", "whole"])
@pytest.mark.parametrize("finest", [2, 8, 32])
def test_dyadic_jumps_are_halves_of_halves_on_their_grid(finest, ends, key):
  drawn = dyadic(key, finest=finest, **ends)
  levels = finest.bit_length() - 1
  steps, n, place = dyadic_rows(drawn, slice(1024), **ends)
  j = np.log2(steps)
  np.testing.assert_allclose(j, np.rint(j), atol=1e-4)
  np.testing.assert_allclose(np.bincount(np.rint(j).astype(int)) / len(j), 1 / levels, atol=0.03)
  np.testing.assert_allclose(n, np.rint(n), atol=1e-3)
  np.testing.assert_allclose(place, 0.5, atol=1e-4)
  for k in range(levels):
    on_level = np.rint(n[np.rint(j) == k])
    np.testing.assert_array_equal(np.unique(on_level), np.arange(1, 2**k + 1))
  steps, n, place = dyadic_rows(drawn, slice(1024, None), **ends)
  np.testing.assert_allclose(steps, finest, rtol=1e-4)
  shares = np.bincount(np.rint(n).astype(int))[1:] / len(n)
  np.testing.assert_allclose(shares, 1 / finest, atol=0.02)
  np.testing.assert_array_equal(drawn.r[1024:], drawn.t[1024:])
  np.testing.assert_allclose(jnp.max(drawn.t), ends["t_max"], rtol=1e-6)
  assert jnp.min(drawn.s) == jnp.float32(ends["t_min"])


@pytest.mark.parametrize("pattern", [patterns.example, patterns.pivot, patterns.two_stream])
def test_dyadic_times_round_a_pattern_up_and_leave_its_context(pattern, key):
  seen = {}

  def spy(*args, **ends):
    seen["t"], seen["active"] = pattern(*args, **ends)
    return seen["t"], seen["active"]

  drawn = dyadic(key, (256, 6, 2), pattern=spy, bootstrapped=128)
  np.testing.assert_array_equal(drawn.active, seen["active"])
  above, active = drawn.t - seen["t"], drawn.active
  assert jnp.all(jnp.where(active, (above >= -1e-6) & (above <= drawn.t - drawn.s + 1e-6), True))
  for u in (drawn.s, drawn.r, drawn.t):
    assert u.shape == seen["t"].shape
    np.testing.assert_array_equal(u[~active], seen["t"][~active])
