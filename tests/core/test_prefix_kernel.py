"""The kernel of prefixes: closed forms, positive, and of the examples in a group's slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grouping, prefix_kernel

GROUPS, M, TOKENS = 3, 4, 6


def sequences():
  return 0.5 * np.random.default_rng(0).normal(size=(GROUPS * M, TOKENS, 2, 2))


def similarity(x, **given):
  given = dict(group_size=M, inverse_bandwidth=3.0) | given
  of = functools.partial(prefix_kernel.prefix_similarity, **given)
  return np.asarray(jax.jit(of)(x))


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("averaged", [True, False])
def test_similarity_is_a_kernel_of_prefixes(averaged, streams, float64):
  found = similarity(sequences(), mean=averaged, streams=streams)
  assert found.shape == (GROUPS, TOKENS, M, M)
  np.testing.assert_array_equal(np.diagonal(found, axis1=2, axis2=3), 1.0)
  np.testing.assert_array_equal(found[:, 0], 1.0)
  assert np.all((found > 0) & (found <= 1)) and np.any(found[:, 1] < 1)
  np.testing.assert_array_equal(found, np.swapaxes(found, 2, 3))
  assert np.min(np.linalg.eigvalsh(found)) > -1e-12
  if streams == 2:  # the first is the prefix of both
    first = similarity(sequences()[:, : TOKENS // 2], mean=averaged)
    np.testing.assert_array_equal(found, np.tile(first, (1, 2, 1, 1)))


def test_similarity_is_of_the_examples_in_the_slots_of_a_group(key):
  x = jnp.tile(jax.random.normal(key, (24, 4, 2)), (1, 2, 1))
  assignment = grouping.by_prefix(jax.random.key(7), x, group_size=4)
  found = similarity(x, streams=2, assignment=assignment)
  for i in range(4):
    expected = similarity(x[assignment[:, 4 + i]], streams=2)[:, i]
    np.testing.assert_allclose(found[:, 4 + i], expected, rtol=1e-5)


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_distance_counts_each_token_less_than_the_next(discount, float64):
  x, others = sequences()[:2], sequences()[2:5]
  found = prefix_kernel.prefix_distance(x, others, discount)
  for i in range(TOKENS):
    age = i - 1 - np.arange(i)
    each = np.linalg.norm((x[:, None, :i] - others[None, :, :i]).reshape(2, 3, i, 4), axis=-1) / 4
    np.testing.assert_allclose(found[i], each @ np.power(discount, age), atol=1e-12)


def test_refusals():
  with pytest.raises(ValueError, match="^inverse_bandwidth=-1.0: set it to 0 or more"):
    similarity(sequences(), inverse_bandwidth=-1.0)
  with pytest.raises(ValueError, match="^discount=1.5"):
    prefix_kernel.prefix_distance(sequences(), sequences(), 1.5)
