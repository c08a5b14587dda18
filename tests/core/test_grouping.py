"""Groups by prefix: every example has a slot, in a group of similar prefixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grouping, prefix_kernel, times as times_lib

TOKENS = 4


def doubled(key, batch):
  x = jax.random.normal(key, (batch, TOKENS, 2))
  return jnp.concatenate([x, x], axis=1)


def assign(x, group_size, key=7):
  return grouping.by_prefix(jax.random.key(key), x, group_size=group_size)


@pytest.mark.parametrize("batch, group_size", [(16, 4), (24, 4), (8, 8), (6, 1), (30, 2)])
def test_every_example_has_one_slot_for_each_token(batch, group_size, key):
  found = assign(doubled(key, batch), group_size)
  assert found.shape == (batch, 2 * TOKENS)
  np.testing.assert_array_equal(jnp.sort(found, axis=0), np.arange(batch)[:, None] + 0 * found)
  np.testing.assert_array_equal(found[:, :TOKENS], np.arange(batch)[:, None] + 0 * found[:, 4:])


def test_prefixes_of_a_group_are_similar(key):
  x = doubled(key, 256)
  similarity = lambda assignment: prefix_kernel.prefix_similarity(
    x, group_size=16, inverse_bandwidth=1.0, streams=2, assignment=assignment
  ).mean(axis=(0, 2, 3))[TOKENS:]
  contiguous, chosen = similarity(None), similarity(assign(x, 16))
  assert chosen[0] == contiguous[0] == 1.0, "the first token has no past"
  assert np.all(chosen[1:] > 1.3 * contiguous[1:])


def test_groups_depend_on_the_past_alone(key):
  x = doubled(key, 32)
  other = x.at[:, 2].set(x[::-1, 2])  # of the context, the only stream that is read
  a, b = assign(x, 4), assign(other, 4)
  np.testing.assert_array_equal(a[:, : TOKENS + 3], b[:, : TOKENS + 3])
  assert np.any(a[:, TOKENS + 3] != b[:, TOKENS + 3])
  assert np.any(a != assign(x, 4, key=8)), "other draws, other groups"


def test_scattered_times_are_those_of_the_slots(key):
  key_x, key_t = jax.random.split(key)
  assignment = assign(doubled(key_x, 24), 4)
  t = jnp.repeat(jax.random.uniform(key_t, (6, 2 * TOKENS, 1)), 4, axis=0)
  slots = times_lib.Times(s=t / 2, r=t - 0.1, t=t, active=t > 0.2)
  found = grouping.scatter_slots(slots, assignment)
  back = grouping.gather_slots(found, assignment)
  jax.tree.map(np.testing.assert_array_equal, back, slots)
  for p, i in ((0, 5), (3, 7), (21, 6)):
    np.testing.assert_array_equal(found.t[assignment[p, i], i], t[p, i])
  assert np.any(found.t != slots.t)


def test_without_an_assignment_slots_are_examples_and_groups_divide_the_batch(key):
  tree = dict(x=doubled(key, 8))
  assert grouping.contiguous(key, tree["x"], group_size=4) is None
  assert grouping.gather_slots(tree, None) is tree and grouping.scatter_slots(tree, None) is tree
  with pytest.raises(ValueError, match="^group_size=3"):
    assign(tree["x"], 3)
