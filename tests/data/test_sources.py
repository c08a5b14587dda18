"""The contract of every data source; a new public source of these modules is tested for free."""

import inspect
import itertools

import jax
import numpy as np
import pytest

from dfim.core import conditioning
from dfim.data.images import digits
from dfim.data.synthetic import bent_walk, cross, memory_walk, steered_walk, toys, walk
from tests.data.helpers import assert_equal, refused

TOYS = [
  f
  for name, f in inspect.getmembers(toys, inspect.isfunction)
  if not name.startswith("_") and name != "load"
]
WALKS = [walk.walk, memory_walk.memory_walk, bent_walk.bent_walk, steered_walk.steered_walk]
SEQUENCES = [cross.cross, *WALKS]
SOURCES = [digits.digits, *SEQUENCES, *TOYS]


@pytest.fixture(params=SOURCES, ids=lambda f: f.__name__)
def source(request):
  return request.param


def test_starting_at_n_equals_skipping_n(source):
  skipped = itertools.islice(source(96, 3), 17, 20)
  for a, b in zip(skipped, source(96, 3, start=17), strict=False):
    assert_equal(a, b)


def test_processes_hold_contiguous_parts_of_one_batch(source):
  whole = next(source(24, 1, 5))
  parts = [next(source(24, 1, 5, process=(i, 3))) for i in range(3)]
  assert_equal(whole, jax.tree.map(lambda *p: np.concatenate(p), *parts))


def test_batches_differ_by_seed_and_number(source):
  a, b = itertools.islice(source(16, 0), 2)
  assert np.any(a["x"] != b["x"])
  assert np.any(a["x"] != next(source(16, 1))["x"])


def test_types_range_and_spread(source):
  batch = next(source(1024, 0))
  assert batch["x"].dtype == np.float32 and len(batch["x"]) == 1024
  assert 0.4 < batch["x"].std() < 0.65
  assert np.abs(batch["x"]).max() < (1.3 if batch["x"].shape[-1] < 3 else 2.0)
  conditioning.check(batch.get("cond"), batch["x"].shape)
  assert {a.dtype.name for a in batch.get("cond", {}).values()} <= {"int32", "float32"}


@pytest.mark.parametrize(
  "kwargs, place", [(dict(process=(0, 3)), "batch_size: 16"), (dict(start=-1), "start: -1")]
)
def test_refusals_come_before_the_first_batch(source, kwargs, place):
  with refused(place):
    source(16, 0, **kwargs)


@pytest.mark.parametrize(
  "toy, field, value",
  [
    *[(toys.ring, "modes", 0), (toys.ring, "radius", np.nan), (toys.ring, "std", -0.1)],
    *[(toys.checkerboard, "squares", 3), (toys.checkerboard, "half_width", np.inf)],
    (toys.load, "size", 0),
  ],
)
def test_fields_of_a_toy_that_make_no_points_are_named(toy, field, value):
  args = () if toy is toys.load else (16, 0)
  with refused(f"data.{field}={value}"):
    toy(*args, **{field: value})


@pytest.mark.parametrize("source", [*TOYS, *SEQUENCES], ids=lambda f: f.__name__)
def test_reference_points_are_fixed_and_apart_from_training(source):
  test, train = toys.load(source, size=64), toys.load(source, split="train", size=64)
  assert_equal(test, toys.load(source, size=64))
  assert len(test["x"]) == 64 and np.all(test["x"] != train["x"])


@pytest.mark.parametrize("module", [memory_walk, bent_walk, steered_walk], ids=lambda m: m.__name__)
def test_a_walk_loads_with_its_own_fields(module):
  found = module.load("train", 5, tokens=1)
  assert found["x"].shape[:2] == (5, 1) and found["x"].dtype == np.float32


def test_digits_are_split_once_and_held_out():
  train, test = digits.load("train"), digits.load("test")
  assert train["x"].shape == (1437, 8, 8, 1) and test["x"].shape == (360, 8, 8, 1)
  assert (train["x"].min(), train["x"].max()) == tuple(np.float32(digits.LIMITS))
  assert set(train["label"]) == set(test["label"]) == set(range(digits.CLASSES))
  for data in train, test:
    assert abs(data["x"].std() - 0.5) < 0.01  # IMM's sigma_data
  shared = (train["x"][:, None] == test["x"][None]).all((2, 3, 4)).sum()
  assert shared == 0


def test_ring_and_checkerboard_lie_where_they_should():
  radius = np.linalg.norm(toys.load(toys.ring)["x"], axis=-1)
  assert abs(radius - 0.7).max() < 0.12
  field = np.floor((toys.load(toys.checkerboard)["x"] / 0.87 + 1) * 2)
  assert np.all(field.sum(-1) % 2 == 0)
  counts = np.unique(field, axis=0, return_counts=True)[1]
  assert len(counts) == 8 and abs(counts / 2500 - 1).max() < 0.1
