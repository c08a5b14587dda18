"""Parts of a set: uniform, and the same whatever the order of the rows."""

import numpy as np
import pytest

from dfim.metrics import subsets

RNG = np.random.default_rng(0)
ROWS = [
  RNG.normal(size=(300, 4, 4, 1)).astype(np.float32),
  RNG.integers(0, 256, (300, 12), np.uint8),
  RNG.normal(size=(300, 1)),
  np.repeat(RNG.normal(size=(30, 3)), 10, axis=0),
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("count", [1, 77, 300])
def test_a_part_holds_the_same_rows_in_any_order(rows, count):
  order = RNG.permutation(300)
  first, again = subsets.choose(rows, count), subsets.choose(rows[order], count)
  assert len(set(first)) == len(set(again)) == count
  table = lambda a: sorted(map(bytes, a))
  assert table(rows[first]) == table(rows[order][again])


def test_every_row_is_as_likely_whatever_it_holds():
  rows = np.sort(RNG.normal(size=(40, 1)), axis=0)
  counts = np.zeros(40)
  for seed in range(2000):
    counts[subsets.choose(rows, 10, seed)] += 1
  assert np.abs(counts - 500).max() < 4.5 * np.sqrt(2000 * 0.25 * 0.75)


def test_equal_rows_have_equal_keys_and_blocks_change_nothing(monkeypatch):
  rows = np.concatenate([ROWS[0], ROWS[0][::-1], -ROWS[0]])
  found = subsets.keys(rows)
  np.testing.assert_array_equal(found[:300], found[300:600][::-1])
  assert len(np.unique(found)) == 600
  np.testing.assert_array_equal(subsets.keys(rows.astype(np.float64)), found)
  whole = subsets.shuffle(ROWS[0])
  monkeypatch.setattr(subsets, "_NUMBERS", 100)
  np.testing.assert_array_equal(subsets.shuffle(ROWS[0]), whole)
  np.testing.assert_array_equal(subsets.choose(ROWS[0], 10**6), np.arange(300))
