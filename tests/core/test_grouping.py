"""Groups of like prefixes: everyone stands somewhere, beside those whose past is alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grouping
from dfim.core import particles
from dfim.core import times as times_lib

TOKENS = 4


def doubled(key, batch):
  """Sequences of numbers, as two streams hold them."""
  x = jax.random.normal(key, (batch, TOKENS, 2))
  return jnp.concatenate([x, x], axis=1)


def order_of(x, group_size, key=7):
  return grouping.like_prefixes(jax.random.key(key), x, group_size=group_size, streams=2)


@pytest.mark.parametrize("batch, group_size", [(16, 4), (24, 4), (8, 8), (6, 1), (30, 2)])
def test_everyone_has_one_place_for_each_token(batch, group_size, key):
  order = order_of(doubled(key, batch), group_size)
  assert order.shape == (batch, 2 * TOKENS)
  np.testing.assert_array_equal(jnp.sort(order, axis=0), np.arange(batch)[:, None] + 0 * order)
  np.testing.assert_array_equal(order[:, :TOKENS], np.arange(batch)[:, None] + 0 * order[:, 4:])


def test_groups_are_of_like_prefixes(key):
  x = doubled(key, 256)
  order = order_of(x, 16)
  alike = lambda order: particles.likeness(
    x, group_size=16, bandwidth=1.0, streams=2, order=order
  ).mean(axis=(0, 2, 3))[TOKENS:]
  as_they_came, chosen = alike(None), alike(order)
  assert chosen[0] == as_they_came[0] == 1.0, "the first token has no past"
  assert np.all(chosen[1:] > 1.3 * as_they_came[1:])


def test_who_meets_whom_is_of_the_past_alone(key):
  x = doubled(key, 32)
  other = x.at[:, 2].set(x[::-1, 2])  # of the context, which alone is looked at
  a, b = order_of(x, 4), order_of(other, 4)
  np.testing.assert_array_equal(a[:, : TOKENS + 3], b[:, : TOKENS + 3])
  assert np.any(a[:, TOKENS + 3] != b[:, TOKENS + 3])
  assert np.any(a != order_of(x, 4, key=8)), "other draws, other groups"


def test_likeness_is_of_those_who_stand_together(key):
  x = doubled(key, 24)
  order = order_of(x, 4)
  how = dict(group_size=4, bandwidth=0.7, streams=2)
  found = particles.likeness(x, order=order, **how)
  for i in range(TOKENS):
    together = x[order[:, TOKENS + i]]
    expected = particles.likeness(together, **how)[:, i]
    np.testing.assert_allclose(found[:, TOKENS + i], expected, rtol=1e-5)


def test_everyone_has_the_time_of_a_place_and_a_group_has_one(key):
  key_x, key_t = jax.random.split(key)
  order = order_of(doubled(key_x, 24), 4)
  t = jnp.repeat(jax.random.uniform(key_t, (6, 2 * TOKENS, 1)), 4, axis=0)
  places = times_lib.Times(s=t / 2, r=t - 0.1, t=t, active=t > 0.2, streams=2, order=order)
  found = grouping.shared(places)
  for name in ("s", "r", "t", "active"):
    back = grouping.at_places(getattr(found, name), order)
    np.testing.assert_array_equal(back, getattr(places, name))
  assert np.any(found.t != places.t)


def test_one_stream_is_refused(key):
  with pytest.raises(ValueError, match="streams=1: set objective.streams=2"):
    grouping.like_prefixes(key, jnp.zeros((8, 4, 2)), group_size=4, streams=1)
