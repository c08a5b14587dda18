"""Patterns: who shares a time, what is context, and positions among real tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants, mappings, patterns, times

ENDS = dict(t_max=0.994, t_min=0.006)
T_MAX, T_MIN = np.float32(0.994), np.float32(0.006)
sample = functools.partial(times.sample, path=interpolants.FlowMatching(), **ENDS)


def mixture(**parts):
  return functools.partial(patterns.mixture, patterns=parts, shares=dict.fromkeys(parts, 1.0))


ALL_ACTIVE = [
  patterns.example,
  patterns.token,
  functools.partial(patterns.uniform_future, past=2),
  mixture(one=patterns.example, many=patterns.token),
]
WITH_CONTEXT = [
  patterns.context,
  patterns.pivot,
  patterns.next_token,
  patterns.two_stream,
  mixture(one=patterns.example, past=patterns.pivot),
]
every_pattern = pytest.mark.parametrize(
  "pattern", [*ALL_ACTIVE, *WITH_CONTEXT], ids=lambda p: getattr(p, "func", p).__name__
)


@every_pattern
def test_times_are_ordered_where_active_and_equal_in_the_context(pattern, key):
  mapping = functools.partial(mappings.eta_decrement, k=8.0)
  drawn = sample(key, (256, 6, 3), pattern=pattern, mapping=mapping, group_size=4)
  shape = (256, 1 if pattern is patterns.example else 6, 1)
  assert {a.shape for a in jax.tree.leaves(drawn)} == {shape} and drawn.active.dtype == bool
  assert jnp.all((T_MIN <= drawn.s) & (drawn.s <= drawn.r) & (drawn.t <= T_MAX))
  assert jnp.all(jnp.where(drawn.active, drawn.r < drawn.t, drawn.s == drawn.t))
  assert jnp.all(drawn.active) == (pattern in ALL_ACTIVE) and jnp.any(drawn.active)


def test_uniform_future_shares_one_time_after_the_past(key):
  t, _ = patterns.uniform_future(key, (500, 6, 2), past=2, **ENDS)
  assert np.all(t[:, 2:] == t[:, 2:3]) and len(np.unique(t[:, :3])) > 1490


def test_context_is_clean_or_noisy_at_its_rates(key):
  t, active = patterns.context(key, (4000, 10, 1), rate=0.3, noisy=0.25, **ENDS)
  assert abs(jnp.mean(~active) - 0.3) < 0.02
  clean = t == T_MIN
  assert jnp.all(~clean | ~active)
  assert abs(jnp.sum(clean) / jnp.sum(~active) - 0.75) < 0.03


def test_pivot_has_a_clean_past_and_an_active_future(key):
  t, active = patterns.pivot(key, (2000, 5, 1), **ENDS)
  first = np.argmax(np.asarray(active[..., 0]), axis=1)
  assert np.all(active[..., 0] == (np.arange(5)[None] >= first[:, None]))
  np.testing.assert_allclose(np.bincount(first) / 2000, 0.2, atol=0.04)
  assert jnp.all(active | (t == T_MIN))
  assert len(np.unique(t[active])) > 0.99 * int(jnp.sum(active))


def test_next_token_is_teacher_forcing(key):
  t, active = (np.asarray(a[..., 0]) for a in patterns.next_token(key, (2000, 5, 1), **ENDS))
  np.testing.assert_array_equal(active.sum(axis=1), 1)
  at, position = np.argmax(active, axis=1)[:, None], np.arange(5)[None]
  assert np.all(t[position < at] == T_MIN) and np.all(t[position > at] == T_MAX)


@pytest.mark.parametrize("noisy", [0.0, 0.25, 1.0])
def test_two_streams_are_a_context_noisy_at_its_rate_and_active_tokens(noisy, key):
  t, is_active = patterns.two_stream(key, (4000, 10, 1), noisy=noisy, **ENDS)
  assert jnp.all(is_active[:, 5:]) and not jnp.any(is_active[:, :5])
  context, active = np.split(np.asarray(t[..., 0]), 2, axis=1)
  assert len(np.unique(active)) > 0.99 * active.size
  clean = context == T_MIN
  assert abs(np.mean(clean) - (1 - noisy)) < 0.015
  if noisy:
    ninths = np.linspace(0.1, 0.9, 9)
    found = np.quantile(context[~clean], ninths)
    np.testing.assert_allclose(found, T_MIN + (T_MAX - T_MIN) * ninths, atol=0.03)
    correlation = np.corrcoef(context[~clean], active[~clean])[0, 1]
    assert abs(correlation) < 0.06, "a level of its own"


PARTS = dict(one=patterns.example, many=patterns.token, next=patterns.next_token)


def parts_of(t, active):
  """Which of PARTS each row followed, bool `[3, B]`."""
  t, active = (np.asarray(a[..., 0]) for a in (t, active))
  shared, all_active = np.all(t == t[:, :1], axis=1), np.all(active, axis=1)
  return np.array([shared & all_active, ~shared & all_active, np.sum(active, axis=1) == 1])


def test_tokens_that_are_never_drawn_do_not_move(key):
  t, is_active = patterns.two_stream(key, (100, 10, 1), past=3, **ENDS)
  np.testing.assert_array_equal(is_active[:, :, 0], np.arange(10)[None] >= 8 + 0 * t[:, :1, 0])
  np.testing.assert_allclose(t[:, 5:8], ENDS["t_min"], rtol=1e-6)


@pytest.mark.parametrize("shares", [(5.0, 2.0, 3.0), (0.0, 0.4, 0.6), (0, 0, 1)], ids=str)
def test_each_row_of_a_mixture_follows_one_pattern_at_its_share(shares, key):
  by_name = dict(reversed(list(zip(PARTS, shares, strict=True))))  # by name, not by order
  followed = parts_of(*patterns.mixture(key, (4000, 5, 2), patterns=PARTS, shares=by_name, **ENDS))
  np.testing.assert_array_equal(followed.sum(axis=0), 1)
  expected = np.array(shares) / sum(shares)
  np.testing.assert_allclose(followed.mean(axis=1), expected, atol=0.03)
  assert not np.any(followed[expected == 0])


def test_a_group_of_a_mixture_or_with_padding_shares_its_pattern(key):
  of_mixture, of_padded = jax.random.split(key)
  drawn = sample(of_mixture, (240, 5, 2), pattern=mixture(**PARTS), group_size=4)
  for a in (drawn.s, drawn.t, drawn.active):
    groups = np.asarray(a).reshape(60, 4, 5)
    assert np.all(groups == groups[:, :1])
  assert np.all(parts_of(drawn.t, drawn.active).any(axis=1))
  mask = random_masks(0, 64)[..., None]
  drawn = sample(of_padded, (64, 6, 2), pattern=patterns.next_token, mask=mask, group_size=4)
  active = np.asarray(drawn.active).reshape(16, 4, 6)
  assert np.all(active == active[:, :1]) and np.all(active.any(axis=-1))


@pytest.mark.parametrize(
  "pattern, given, field",
  [
    ("uniform_future", dict(past=6), "past=6"),
    ("context", dict(rate=1.0), "rate=1.0"),
    ("two_stream", dict(noisy=1.5), "noisy=1.5"),
    ("two_stream", dict(past=5), "past=5"),
    ("mixture", dict(patterns=PARTS, shares=dict(one=1.0, many=1.0, two=1.0)), "shares="),
    ("mixture", dict(patterns=PARTS, shares=dict.fromkeys(PARTS, 0.0)), "shares="),
    ("mixture", mixture(one=patterns.two_stream).keywords, "mixture of two_stream"),
  ],
)
def test_wrong_fields_are_named(pattern, given, field, key):
  with pytest.raises(ValueError, match=field):
    getattr(patterns, pattern)(key, (4, 6, 1), **given, **ENDS)
  with pytest.raises(ValueError, match="two_stream of 5 tokens"):
    patterns.two_stream(key, (4, 5, 1), **ENDS)


@every_pattern
def test_padding_is_pure_noise_and_not_active(pattern, key):
  mask = (np.arange(6) < np.arange(1, 9)[:, None])[..., None]
  drawn = sample(key, (8, 6, 2), pattern=pattern, mask=mask)
  for u in (drawn.s, drawn.r, drawn.t):
    assert u.shape == (8, 6, 1)
    assert jnp.all(jnp.where(mask, True, u == T_MAX))
  assert not jnp.any(drawn.active & ~mask)


@every_pattern
def test_a_mask_without_padding_draws_the_same_as_no_mask(pattern, key):
  draw = lambda mask: sample(key, (64, 6, 2), pattern=pattern, mask=mask)
  with jax.debug_key_reuse(False):
    drawn, masked = map(draw, (None, np.ones((64, 6, 1), bool)))
  for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(drawn), strict=True):
    np.testing.assert_array_equal(a, jnp.broadcast_to(b, a.shape))


def random_masks(seed, examples, prefix=True):
  """Real tokens of 6, 1 or more of each example: the first few, or any."""
  rng = np.random.default_rng(seed)
  if prefix:
    return np.arange(6)[None] < rng.integers(1, 7, (examples, 1))
  mask = rng.random((examples, 6)) < 0.4
  mask[np.arange(examples), rng.integers(0, 6, examples)] = True
  return mask


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize(
  "pattern, streams",
  [
    (patterns.pivot, 1),
    (patterns.next_token, 1),
    (patterns.two_stream, 2),
    (mixture(next=patterns.next_token, past=patterns.pivot), 1),
  ],
)
def test_every_example_with_a_real_token_has_an_active_one(pattern, streams, prefix, key):
  draw = jax.jit(lambda k, mask: sample(k, (16, 6 * streams, 2), pattern=pattern, mask=mask))
  for seed, k in enumerate(jax.random.split(key, 50)):
    mask = np.tile(random_masks(seed, 16, prefix=prefix), streams)[..., None]
    active = np.asarray(draw(k, mask).active)
    assert np.all(active.any(axis=1)) and not np.any(active & ~mask)


@pytest.mark.parametrize("mask", [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 1, 0]], ids=str)
@pytest.mark.parametrize("pattern", [patterns.pivot, patterns.next_token])
def test_the_position_is_uniform_over_the_real_tokens(pattern, mask, key):
  mask = np.array(mask, bool)
  every = jnp.asarray(np.tile(mask, (6000, 1))[..., None])
  active = np.asarray(pattern(key, (6000, 5, 2), mask=every, **ENDS)[1][..., 0])
  share = np.bincount(np.argmax(active, axis=1), minlength=5) / 6000
  np.testing.assert_allclose(share, mask / mask.sum(), atol=0.03 if mask.sum() > 1 else 0)


def test_a_pattern_that_takes_no_mask_is_given_none(key):
  def unmasked(key, shape, *, t_max, t_min):
    return patterns.token(key, shape, t_max=t_max, t_min=t_min)

  mask = random_masks(0, 8)[..., None]
  for pattern in (unmasked, mixture(a=unmasked)):
    with jax.debug_key_reuse(False):
      drawn = sample(key, (8, 6, 2), pattern=pattern, mask=mask)
    np.testing.assert_array_equal(drawn.active, mask)
