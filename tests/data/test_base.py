import itertools

import jax
import numpy as np
import pytest

from dfim.data import base
from tests.data.helpers import refused


def stream(size, batch_size, count, **kwargs):
  data = dict(x=np.arange(size))
  return [b["x"] for b in itertools.islice(base.batches(data, batch_size, 0, **kwargs), count)]


@pytest.mark.parametrize("size, batch_size", [(10, 4), (7, 7), (3, 8), (1, 2), (5, 11)])
def test_each_epoch_holds_each_example_once(size, batch_size):
  flat = np.concatenate(stream(size, batch_size, 4 * size))
  epochs = flat.reshape(-1, size)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(size), (len(epochs), 1)))


def test_epochs_are_shuffled_apart_and_a_late_start_costs_nothing():
  first, second = stream(50, 50, 2)
  assert np.any(first != second) and np.any(first != np.arange(50))
  assert stream(1000, 10, 1, start=10**12)[0].shape == (10,)


def test_refuses_ragged_and_empty_arrays():
  with refused("data", "[2, 3]"):
    base.batches(dict(x=np.zeros(2), y=np.zeros(3)), 1, 0)
  with refused("data"):
    base.batches(dict(x=np.zeros(0)), 1, 0)
  with refused("batch_size", 0):
    base.batches(dict(x=np.zeros(2)), 0, 0)


def test_the_next_block_is_generated_ahead():
  begun = []

  def distribution(key):
    begun.append(key)
    return jax.random.normal(key, (4096, 1))  # two batches are drawn together

  stream = base.drawn(distribution, 4096, 0, 0, (0, 1))
  counts = [len(begun) for _ in zip(range(5), stream, strict=False)]
  assert counts == [2, 2, 3, 3, 4]


@pytest.mark.parametrize("start", [0, 1, 2, 5])
def test_generated_batches_do_not_depend_on_their_blocks(start):
  distribution = lambda key: jax.random.normal(key, (2048, 1))  # four batches a block
  batches = itertools.islice(base.drawn(distribution, 2048, 3, start, (1, 2)), 6)
  for n, batch in enumerate(batches, start):
    x = jax.jit(distribution)(jax.random.fold_in(jax.random.key(3), n))
    np.testing.assert_array_equal(batch["x"], x[1024:])
