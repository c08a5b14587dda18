"""Training times: order, spread, who shares them, and the gap that keeps kernels finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants, mappings, times

PATH = interpolants.FlowMatching()
ENDS = dict(t_max=0.994, t_min=0.006)
sample = functools.partial(times.sample, path=PATH, pattern=times.example, **ENDS)
TWO_STREAM = functools.partial(times.two_stream, moving=times.pivot)


def mixture(**patterns):
  shares = {name: 1.0 for name in patterns}
  return functools.partial(times.mixture, patterns=patterns, shares=shares)


ALL_ACTIVE = [
  times.example,
  times.token,
  functools.partial(times.uniform_future, past=2),
  mixture(one=times.example, many=times.token),
]
WITH_CONTEXT = [
  times.context,
  times.pivot,
  times.next_token,
  times.two_stream,
  TWO_STREAM,
  mixture(one=times.example, past=times.pivot),
]


def name_of(pattern):
  return getattr(pattern, "func", pattern).__name__


@pytest.mark.parametrize("pattern", ALL_ACTIVE, ids=name_of)
def test_times_have_the_rank_of_x_and_are_ordered(pattern, key):
  mapping = functools.partial(mappings.eta_decrement, k=8.0)
  drawn = sample(key, (64, 5, 3), pattern=pattern, mapping=mapping, group_size=4)
  shape = (64, 1 if pattern is times.example else 5, 1)
  assert {a.shape for a in jax.tree.leaves(drawn)} == {shape}
  assert drawn.active.dtype == bool and jnp.all(drawn.active)
  assert jnp.all((ENDS["t_min"] <= drawn.s) & (drawn.s <= drawn.r) & (drawn.r < drawn.t))
  assert jnp.all(drawn.t <= ENDS["t_max"])


@pytest.mark.parametrize("pattern", WITH_CONTEXT, ids=name_of)
def test_context_stands_still(pattern, key):
  mapping = functools.partial(mappings.eta_decrement, k=8.0)
  drawn = sample(key, (256, 6, 3), pattern=pattern, mapping=mapping, group_size=4)
  still = (drawn.s == drawn.t) & (drawn.r == drawn.t)
  assert jnp.all(still == ~drawn.active)
  assert 0 < jnp.mean(drawn.active) < 1
  assert jnp.all(jnp.where(drawn.active, drawn.t > drawn.s, True))


def test_uniform_future_shares_one_time_after_the_past(key):
  drawn = sample(key, (500, 6, 2), pattern=functools.partial(times.uniform_future, past=2))
  t = np.asarray(drawn.t[..., 0])
  assert np.all(t[:, 2:] == t[:, 2:3])
  assert len(np.unique(t[:, :3])) == 1500
  with pytest.raises(ValueError, match="past=6"):
    times.uniform_future(jax.random.key(1), (4, 6, 2), past=6, **ENDS)


def test_context_is_clean_or_noisy_at_its_rates(key):
  t, active = times.context(key, (4000, 10, 1), rate=0.3, noisy=0.25, **ENDS)
  assert abs(jnp.mean(~active) - 0.3) < 0.02
  clean = t == jnp.float32(ENDS["t_min"])
  assert jnp.all(~clean | ~active)
  assert abs(jnp.sum(clean) / jnp.sum(~active) - 0.75) < 0.03
  with pytest.raises(ValueError, match="rate=1.0"):
    times.context(jax.random.key(1), (4, 6, 2), rate=1.0, **ENDS)


def test_pivot_has_a_clean_past_and_an_active_future(key):
  t, active = times.pivot(key, (2000, 5, 1), **ENDS)
  first = np.argmax(np.asarray(active[..., 0]), axis=1)
  assert np.all(active[..., 0] == (np.arange(5)[None] >= first[:, None]))
  np.testing.assert_allclose(np.bincount(first) / 2000, 0.2, atol=0.04)
  assert jnp.all(active | (t == jnp.float32(ENDS["t_min"])))
  assert len(np.unique(t[active])) > 0.99 * int(jnp.sum(active))


def test_next_token_is_teacher_forcing(key):
  t, active = (np.asarray(a[..., 0]) for a in times.next_token(key, (2000, 5, 1), **ENDS))
  np.testing.assert_array_equal(active.sum(axis=1), 1)
  at, position = np.argmax(active, axis=1)[:, None], np.arange(5)[None]
  assert np.all(t[position < at] == np.float32(ENDS["t_min"]))
  assert np.all(t[position > at] == np.float32(ENDS["t_max"]))


@pytest.mark.parametrize("moving", [times.token, times.example, times.pivot], ids=name_of)
def test_two_streams_are_context_that_stands_and_the_moving_pattern(moving, key):
  seen = {}

  def spy(key, shape, **ends):
    assert shape == (64, 5, 3) and ends == ENDS
    seen["moving"] = moving(key, shape, **ends)
    return seen["moving"]

  t, active = times.two_stream(key, (64, 10, 3), moving=spy, **ENDS)
  assert t.shape == active.shape == (64, 10, 1)
  assert not jnp.any(active[:, :5])
  for found, drawn in zip((t, active), seen["moving"], strict=True):
    np.testing.assert_array_equal(found[:, 5:], jnp.broadcast_to(drawn, (64, 5, 1)))


@pytest.mark.parametrize("noisy", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("highest", [0.4, 1.0])
def test_the_context_of_two_streams_is_clean_or_noisy_at_its_rate(noisy, highest, key):
  t, _ = times.two_stream(key, (4000, 10, 1), noisy=noisy, highest=highest, **ENDS)
  context, moving = np.split(np.asarray(t[..., 0]), 2, axis=1)
  clean = context == np.float32(ENDS["t_min"])
  assert abs(np.mean(clean) - (1 - noisy)) < 0.015
  if noisy:
    top = min(highest, ENDS["t_max"])
    expected = ENDS["t_min"] + (top - ENDS["t_min"]) * np.linspace(0.1, 0.9, 9)
    found = np.quantile(context[~clean], np.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert 0.97 * top < np.max(context) <= np.float32(top)
    together = np.corrcoef(context[~clean], moving[~clean])[0, 1]
    assert abs(together) < 0.06, "a level of its own"


@pytest.mark.parametrize(
  "tokens,wrong,message",
  [
    (5, {}, "two_stream of 5 tokens: set objective.conditioning"),
    (6, dict(noisy=1.5), "noisy=1.5"),
    (6, dict(highest=0.006), "highest=0.006"),
    (6, dict(highest=1.1), "highest=1.1"),
  ],
)
def test_two_streams_that_cannot_be_are_named(tokens, wrong, message, key):
  with pytest.raises(ValueError, match=message):
    times.two_stream(key, (4, tokens, 1), **wrong, **ENDS)


PARTS = dict(one=times.example, many=times.token, next=times.next_token)


def parts_of(t, active):
  """Which of PARTS each row followed, bool `[3, B]`."""
  t, active = (np.asarray(a[..., 0]) for a in (t, active))
  shared, all_active = np.all(t == t[:, :1], axis=1), np.all(active, axis=1)
  return np.array([shared & all_active, ~shared & all_active, np.sum(active, axis=1) == 1])


@pytest.mark.parametrize("shares", [(5.0, 2.0, 3.0), (0.0, 0.4, 0.6), (0, 0, 1)], ids=str)
def test_each_row_of_a_mixture_follows_one_pattern_at_its_share(shares, key):
  by_name = dict(reversed(list(zip(PARTS, shares, strict=True))))  # by name, not by order
  followed = parts_of(*times.mixture(key, (4000, 5, 2), patterns=PARTS, shares=by_name, **ENDS))
  np.testing.assert_array_equal(followed.sum(axis=0), 1)
  expected = np.array(shares) / sum(shares)
  np.testing.assert_allclose(followed.mean(axis=1), expected, atol=0.03)
  assert not np.any(followed[expected == 0])


def test_a_group_follows_one_pattern_of_a_mixture(key):
  pattern = functools.partial(times.mixture, patterns=PARTS, shares=dict(one=1, many=1, next=1))
  drawn = sample(key, (240, 5, 2), pattern=pattern, group_size=4)
  for a in (drawn.s, drawn.t, drawn.active):
    groups = np.asarray(a).reshape(60, 4, 5)
    assert np.all(groups == groups[:, :1])
  assert np.all(parts_of(drawn.t, drawn.active).any(axis=1))


@pytest.mark.parametrize(
  "shares",
  [dict(one=1.0), dict(one=1.0, two=1.0), dict(one=-1.0, many=2.0), dict(one=0.0, many=0.0)],
  ids=str,
)
def test_shares_that_name_no_mixture_are_refused(shares, key):
  patterns = dict(one=times.example, many=times.token)
  with pytest.raises(ValueError, match="shares=.*to each of one, many"):
    times.mixture(key, (4, 5, 1), patterns=patterns, shares=shares, **ENDS)


def test_a_mixture_of_two_streams_is_refused(key):
  with pytest.raises(ValueError, match="mixture of two_stream: mix the patterns of its `moving`"):
    mixture(one=times.two_stream)(key, (4, 6, 1), **ENDS)


@pytest.mark.parametrize("pattern", [*ALL_ACTIVE, *WITH_CONTEXT], ids=name_of)
def test_padding_is_pure_noise_and_not_active(pattern, key):
  mask = (np.arange(6) < np.arange(1, 9)[:, None])[..., None]
  drawn = sample(key, (8, 6, 2), pattern=pattern, mask=mask)
  for u in (drawn.s, drawn.r, drawn.t):
    assert u.shape == (8, 6, 1)
    assert jnp.all(jnp.where(mask, True, u == jnp.float32(ENDS["t_max"])))
  assert not jnp.any(drawn.active & ~mask)


POSITIONED = [
  times.pivot,
  times.next_token,
  functools.partial(times.two_stream, moving=times.next_token),
  mixture(next=times.next_token, past=times.pivot),
]


def random_masks(seed, examples, tokens=6, prefix=True):
  """Real tokens, 1 or more of each example: the first few, or any."""
  rng = np.random.default_rng(seed)
  if prefix:
    return np.arange(tokens)[None] < rng.integers(1, tokens + 1, (examples, 1))
  mask = rng.random((examples, tokens)) < 0.4
  mask[np.arange(examples), rng.integers(0, tokens, examples)] = True
  return mask


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("pattern", POSITIONED, ids=name_of)
def test_every_example_with_a_real_token_has_an_active_one(pattern, prefix, key):
  streams = 2 if name_of(pattern) == "two_stream" else 1
  draw = jax.jit(lambda k, mask: sample(k, (16, 6 * streams, 2), pattern=pattern, mask=mask))
  for seed, k in enumerate(jax.random.split(key, 50)):
    mask = np.tile(random_masks(seed, 16, prefix=prefix), streams)[..., None]
    active = np.asarray(draw(k, mask).active)
    assert np.all(active.any(axis=1)) and not np.any(active & ~mask)


@pytest.mark.parametrize("mask", [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 1, 0]], ids=str)
@pytest.mark.parametrize("pattern", [times.pivot, times.next_token], ids=name_of)
def test_the_position_is_uniform_over_the_real_tokens(pattern, mask, key):
  mask = np.array(mask, bool)
  every = jnp.asarray(np.tile(mask, (6000, 1))[..., None])
  active = np.asarray(pattern(key, (6000, 5, 2), mask=every, **ENDS)[1][..., 0])
  share = np.bincount(np.argmax(active, axis=1), minlength=5) / 6000
  np.testing.assert_allclose(share, mask / mask.sum(), atol=0.03 if mask.sum() > 1 else 0)


@pytest.mark.parametrize("pattern", [*ALL_ACTIVE, *WITH_CONTEXT], ids=name_of)
def test_a_mask_without_padding_draws_what_none_does(pattern, key):
  with jax.debug_key_reuse(False):
    drawn, masked = (
      sample(key, (64, 6, 2), pattern=pattern, mask=mask)
      for mask in (None, np.ones((64, 6, 1), bool))
    )
  for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(drawn), strict=True):
    np.testing.assert_array_equal(a, jnp.broadcast_to(b, a.shape))


def test_a_group_shares_a_position_that_is_real_in_all_its_examples(key):
  mask = random_masks(0, 64)[..., None]
  drawn = sample(key, (64, 6, 2), pattern=times.next_token, mask=mask, group_size=4)
  active = np.asarray(drawn.active).reshape(16, 4, 6)
  assert np.all(active == active[:, :1]) and np.all(active.any(axis=-1))


def test_an_example_that_is_all_padding_has_finite_times_and_no_active_token(key):
  drawn = sample(key, (4, 6, 2), pattern=times.pivot, mask=np.zeros((4, 6, 1), bool))
  assert not jnp.any(drawn.active)
  for u in (drawn.s, drawn.r, drawn.t):
    np.testing.assert_array_equal(u, np.float32(ENDS["t_max"]))


def test_a_pattern_that_takes_no_mask_is_given_none(key):
  def own(key, shape, *, t_max, t_min):
    return times.token(key, shape, t_max=t_max, t_min=t_min)

  mask = random_masks(0, 8)[..., None]
  for pattern in (own, functools.partial(times.mixture, patterns=dict(a=own), shares=dict(a=1.0))):
    with jax.debug_key_reuse(False):
      drawn = sample(key, (8, 6, 2), pattern=pattern, mask=mask)
    np.testing.assert_array_equal(drawn.active, mask)


def test_the_mean_is_over_what_is_active_and_0_of_nothing():
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
  assert abs(counts[0] - 50_000 / levels) < 6 * np.sqrt(50_000 / levels)
  assert abs(counts[-1] - 50_000 / levels) < 6 * np.sqrt(50_000 / levels)
  levels_themselves = jnp.arange(levels + 1) / levels
  np.testing.assert_allclose(path.snap(levels_themselves), levels_themselves, rtol=1e-6)


def test_a_group_is_consecutive_examples_of_one_time(key):
  drawn = sample(key, (12, 2), group_size=4)
  for a in (drawn.s, drawn.t):
    groups = np.asarray(a).reshape(3, 4)
    assert np.all(groups == groups[:, :1])
    assert len(np.unique(groups)) == 3


def test_each_particle_may_have_times_of_its_own(key):
  mapping = functools.partial(mappings.log_snr_decrement, k=8.0)
  drawn = sample(key, (12, 2), group_size=4, mapping=mapping, per_particle_times=True)
  assert (
    drawn.per_particle_times
    and not sample(jax.random.key(1), (12, 2), group_size=4).per_particle_times
  )
  for a in (drawn.s, drawn.r, drawn.t):
    assert a.shape == (12, 1) and len(np.unique(a)) == 12


@pytest.mark.parametrize("gap", [1e-5, 1e-3])
def test_active_times_are_never_closer_than_the_gap(gap, key):
  """10^7 draws: without the gap, float32 gives s = t about twice here, and the loss is NaN."""
  draw = jax.jit(lambda k: sample(k, (10**6, 1), gap=gap))
  for k in jax.random.split(key, 10):
    drawn = draw(k)
    assert jnp.min(drawn.t - drawn.s) >= jnp.float32(gap)
    assert jnp.min(drawn.s) >= jnp.float32(ENDS["t_min"])


def test_t_and_s_are_uniform(key):
  drawn = sample(key, (100_000, 1))
  t = (drawn.t - 0.006) / (0.994 - 0.006)
  s = (drawn.s - 0.006) / (drawn.t - 0.006)
  for u in (t, s):
    quantiles = jnp.quantile(u, jnp.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(quantiles, np.linspace(0.1, 0.9, 9), atol=0.01)


def test_part_of_the_mass_of_s_can_lie_on_t_min(key):
  at_end = sample(key, (10_000, 1), p_endpoint=0.3).s == jnp.float32(0.006)
  assert abs(jnp.mean(at_end) - 0.3) < 0.02


def test_everything_on_t_min_is_the_consistency_model(key):
  assert jnp.all(sample(key, (1000, 1), p_endpoint=1.0).s == jnp.float32(0.006))


def test_part_of_the_jumps_can_be_the_base_of_the_induction(key):
  mapping = functools.partial(mappings.log_snr_decrement, k=6.0)
  drawn = sample(key, (10_000, 1), mapping=mapping, p_one_step=0.3, p_endpoint=0.5)
  one_step = mapping(PATH, jnp.full_like(drawn.t, 0.006), drawn.t, **ENDS)
  free = drawn.s != jnp.float32(0.006)
  base = free & (drawn.s == one_step) & (drawn.r == drawn.s)
  assert abs(jnp.sum(base) / jnp.sum(free) - 0.3) < 0.02


def test_reach_bounds_the_length_of_a_jump(key):
  drawn = sample(key, (10_000, 1), reach=jnp.float32(0.1))
  length = drawn.t - drawn.s
  assert jnp.max(length) <= 0.1 + 1e-6
  assert jnp.max(length) > 0.099
  corner = sample(jax.random.key(1), (10_000, 1), reach=0.1, p_endpoint=1.0)
  assert jnp.max(corner.t - corner.s) <= 0.1 + 1e-6, "also where s is drawn to t_min"


def test_without_a_mapping_r_is_t(key):
  drawn = sample(key, (8, 1))
  np.testing.assert_array_equal(drawn.r, drawn.t)


@pytest.mark.parametrize(
  "wrong,message",
  [
    (dict(t_max=0.1, t_min=0.2), "t_min=0.2, t_max=0.1: set 0 <= t_min < t_max <= 1"),
    (dict(p_one_step=0.5), "p_one_step=0.5: there is no r without a mapping"),
    (dict(p_one_step=1.5), "p_one_step=1.5: a probability"),
    (dict(t_max=1.2), "t_max=1.2"),
    (dict(gap=0.0), "gap=0.0: set 0 < gap"),
    (dict(group_size=3), "group_size=3 does not divide batch_size=8"),
    (dict(group_size=0), "group_size=0"),
  ],
)
def test_wrong_fields_are_named(wrong, message, key):
  with pytest.raises(ValueError, match=message):
    sample(key, (8, 1), **wrong)


def dyadic(key, shape=(4096, 6, 2), *, pattern=times.token, bootstrapped=1024, finest=8, **ends):
  given = dict(pattern=pattern, bootstrapped=bootstrapped, finest=finest)
  return times.dyadic(key, shape, path=PATH, **given, **{**ENDS, **ends})


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
  np.testing.assert_allclose(
    np.bincount(np.rint(n).astype(int))[1:] / len(n), 1 / finest, atol=0.02
  )
  np.testing.assert_array_equal(drawn.r[1024:], drawn.t[1024:])
  np.testing.assert_allclose(jnp.max(drawn.t), ends["t_max"], rtol=1e-6)
  assert jnp.min(drawn.s) == jnp.float32(ends["t_min"])


@pytest.mark.parametrize(
  "pattern", [times.example, times.token, times.pivot, TWO_STREAM], ids=name_of
)
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


@pytest.mark.parametrize(
  "wrong,message",
  [
    (dict(finest=3), "finest=3: set it to a power of 2"),
    (dict(finest=1), "finest=1"),
    (dict(finest=0), "finest=0"),
    (dict(t_max=1.2), "t_max=1.2"),
  ],
)
def test_a_dyadic_grid_that_cannot_be_is_named(wrong, message, key):
  with pytest.raises(ValueError, match=message):
    dyadic(key, **wrong)
