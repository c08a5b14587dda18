"""Groups by prefix: every example has a slot, in a group of similar prefixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grouping, prefixes, scales as scales_lib, times as times_lib

TOKENS = 4


SCALES = scales_lib.Scales(dict(x=1.0), (1.0,) * TOKENS, (1.0,) * TOKENS, (1.0,) * TOKENS)


def drawn(key, batch, **given):
  return prefixes.of_batch(dict(x=jax.random.normal(key, (batch, TOKENS, 2)), **given))


def assign(p, group_size, key=7):
  return grouping.by_prefix(jax.random.key(key), p, group_size=group_size, scales=SCALES)


@pytest.mark.parametrize("batch, group_size", [(16, 4), (24, 4), (8, 8), (6, 1), (30, 2)])
def test_every_example_has_one_slot_for_each_token(batch, group_size, key):
  found = assign(drawn(key, batch), group_size)
  assert found.shape == (batch, TOKENS)
  np.testing.assert_array_equal(jnp.sort(found, axis=0), np.arange(batch)[:, None] + 0 * found)


def test_prefixes_of_a_group_are_similar(key):
  p = drawn(key, 256)
  unit, rows = prefixes.units(p), jnp.arange(256).reshape(16, 16)

  def apart(i, members):
    groups = jax.tree.map(lambda a: a[members], p)
    return float(jnp.mean(jax.vmap(lambda g: prefixes.distance(g, g, unit))(groups)[:, i]))

  found = assign(p, 16)
  for i in range(1, TOKENS):
    assert apart(i, found[:, i].reshape(16, 16)) < 0.85 * apart(i, rows)


def test_groups_share_their_condition(key):
  """Two labels, twice as far as any prefix: nearly all groups have one or the other."""
  label = jnp.asarray(np.random.default_rng(0).integers(0, 2, 64))
  found = assign(drawn(key, 64, cond=dict(label=10 * label)), 4)[:, 0]
  mixed = label[found.reshape(16, 4)]
  assert np.sum(jnp.any(mixed != mixed[:, :1], axis=1)) <= 4


def test_padding_is_grouped_with_padding(key):
  mask = jnp.arange(64).reshape(64, 1, 1) % 3 > 0
  found = assign(drawn(key, 64, mask=jnp.tile(mask, (1, TOKENS, 1))), 4)
  real = mask[:, 0, 0][found].reshape(16, 4, TOKENS)
  assert np.all(jnp.sum(jnp.any(real != real[:, :1], axis=1), axis=0) <= 1)


def test_groups_depend_on_the_past_alone(key):
  p = drawn(key, 32)
  other = p.replace(x=p.x.at[:, 2].set(p.x[::-1, 2]))
  a, b = assign(p, 4), assign(other, 4)
  np.testing.assert_array_equal(a[:, :3], b[:, :3])
  assert np.any(a[:, 3] != b[:, 3])
  assert np.any(a != assign(p, 4, key=8)), "other draws, other groups"


def test_scattered_times_are_those_of_the_slots(key):
  key_x, key_t = jax.random.split(key)
  assignment = assign(drawn(key_x, 24), 4)
  t = jnp.repeat(jax.random.uniform(key_t, (6, TOKENS, 1)), 4, axis=0)
  slots = times_lib.Times(s=t / 2, r=t - 0.1, t=t, active=t > 0.2)
  found = grouping.scatter_slots(slots, assignment)
  back = grouping.gather_slots(found, assignment)
  jax.tree.map(np.testing.assert_array_equal, back, slots)
  for p, i in ((0, 1), (3, 3), (21, 2)):
    np.testing.assert_array_equal(found.t[assignment[p, i], i], t[p, i])
  assert np.any(found.t != slots.t)


def test_without_an_assignment_slots_are_examples_and_groups_divide_the_batch(key):
  tree, p = dict(x=jnp.zeros((8, TOKENS))), drawn(key, 8)
  assert grouping.contiguous(key, p, group_size=4, scales=SCALES) is None
  assert grouping.gather_slots(tree, None) is tree and grouping.scatter_slots(tree, None) is tree
  with pytest.raises(ValueError, match="^group_size=3"):
    assign(p, 3)
