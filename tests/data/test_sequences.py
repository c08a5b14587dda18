"""Sequences of one's own come back from their file: scaled, masked, and with their conditions."""

import itertools

import numpy as np
import pytest

from dfim.core import conditioning, two_stream
from dfim.data import identity, sequences
from tests.data.helpers import assert_equal, refused

RNG = np.random.default_rng(0)
N, T, D = 10, 4, 3
X = 7.0 + 20 * RNG.normal(size=(N, T, D))
MASK = np.arange(T) < RNG.integers(1, T + 1, N)[:, None]
COND = dict(
  label=RNG.integers(0, 5, N),
  action=RNG.integers(0, 256, (N, T), np.uint8),
  done=RNG.integers(0, 2, (N, T)).astype(bool),
  pose=RNG.normal(size=(N, T, 2)),
  goal=RNG.normal(size=(N, 5)).astype(np.float16),
  weekday=RNG.integers(0, 7, N),
)


@pytest.fixture
def save(tmp_path):
  """Writes arrays to a file, and gives its path."""
  numbers = itertools.count()

  def write(**arrays):
    path = tmp_path / f"{next(numbers)}.npz"
    np.savez(path, **arrays)
    return path

  return write


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("more", [{}, dict(mask=MASK)])
def test_one_number_gives_real_tokens_the_deviation_that_is_asked_for(save, std, more):
  path = save(x=X, **more)
  found = sequences.load(path, std=std)
  real = MASK if more else np.full((N, T), True)
  assert found["x"].dtype == np.float32 and found["x"][real].std() == pytest.approx(std)
  factor = sequences.scale(path, std)
  np.testing.assert_allclose(found["x"][real] / factor, X[real], rtol=1e-5)
  assert np.all(found["x"][~real] == 0)


def test_held_out_sequences_have_the_scale_of_training(save):
  train, test = save(x=X), save(x=3 * X)
  found = sequences.load(test, like=train)
  np.testing.assert_allclose(found["x"], 3 * sequences.load(train)["x"], rtol=1e-5)
  batch = next(sequences.npz(N, 0, path=test, like=train))
  np.testing.assert_allclose(np.sort(batch["x"], None), np.sort(found["x"], None))
  np.testing.assert_allclose(sequences.load(test, std=None)["x"], 3 * X, rtol=1e-6)


def test_every_kind_of_condition_comes_along_with_its_own_example(save):
  path = save(x=X, **COND)
  data, factor = sequences.load(path), sequences.scale(path)
  conditioning.check(data["cond"], data["x"].shape)
  assert {name: a.dtype.name for name, a in data["cond"].items()} == {
    name: "int32" if conditioning.is_discrete(a) else "float32" for name, a in COND.items()
  }
  stream = sequences.npz(6, 0, path=path)
  assert stream.size == N and set(stream.labels) == set(COND["label"])
  for batch in itertools.islice(stream, 4):
    rows = [int(np.abs(factor * X - x).sum((1, 2)).argmin()) for x in batch["x"]]
    for name, array in COND.items():
      np.testing.assert_allclose(batch["cond"][name], array[rows].astype(float), rtol=1e-6)


def test_what_is_padding_may_hold_anything_and_is_null(save):
  spoil = lambda a, value: np.where(MASK if a.ndim == 2 else MASK[..., None], a, value)
  cond = dict(pose=spoil(COND["pose"], np.nan), action=spoil(COND["action"].astype(int), -999))
  data = sequences.load(save(x=spoil(X, np.inf), mask=MASK, **cond))
  two_stream.check_mask(data["mask"], data["x"].shape)
  assert_equal(data["mask"][..., 0], MASK)
  assert np.isfinite(data["x"]).all()
  hidden = conditioning.hide(data["cond"], data["mask"])
  assert_equal({k: np.asarray(a) for k, a in hidden.items()}, data["cond"])
  assert np.all(data["cond"]["action"][~MASK] == -1) and np.all(data["cond"]["pose"][~MASK] == 0)


def test_batches_keep_the_contract_also_beyond_the_number_of_examples(save):
  path = save(x=X, mask=MASK, **COND)
  whole = next(sequences.npz(24, 1, 3, path=path))
  assert whole["x"].shape == (24, T, D) and whole["mask"].shape == (24, T, 1)
  parts = [next(sequences.npz(24, 1, 3, path=path, process=(i, 2))) for i in range(2)]
  assert_equal(whole["x"], np.concatenate([p["x"] for p in parts]))
  assert_equal(whole["cond"]["goal"], np.concatenate([p["cond"]["goal"] for p in parts]))
  of = lambda **fields: identity.identity(lambda: sequences.npz(4, 0, **fields))
  assert of(path=path)["examples"] == N and of(path=path) == of(path=save(x=X, mask=MASK, **COND))
  assert of(path=path) != of(path=save(x=X, mask=MASK, **COND | dict(label=COND["label"] + 1)))


def test_a_part_is_spread_over_the_file(save):
  path = save(x=X, mask=MASK, **COND)
  found, whole = sequences.load(path, size=4), sequences.load(path)
  for part, array in ((found["x"], whole["x"]), (found["cond"]["pose"], whole["cond"]["pose"])):
    np.testing.assert_array_equal(part, array[[0, 3, 6, 9]])
  assert len(found["mask"]) == 4
  assert_equal(sequences.load(path, size=99), whole)


def test_a_mean_that_one_number_cannot_remove_is_warned_of(save, caplog):
  caplog.set_level("WARNING", logger="absl")
  sequences.load(save(x=X))
  assert not caplog.records
  sequences.load(save(x=X + 100))
  assert "subtract it" in caplog.text


NAN = np.where(np.arange(N)[:, None, None] == 6, np.nan, X)


@pytest.mark.parametrize(
  "arrays, parts",
  [
    (dict(images=X), ["has no x, but images", "'x'"]),
    (dict(x=X.astype(int)), ["x of shape (10, 4, 3) and dtype int64", "floating [N, T, D]"]),
    (dict(x=X[..., 0]), ["x of shape (10, 4) and", "floating [N, T, D]"]),
    (dict(x=X[:0]), ["x of 0 sequences"]),
    (dict(x=NAN), ["x: nan at sequence 6, token 0, dimension 0", "fill it"]),
    (dict(x=NAN, mask=MASK), ["x: nan at sequence 6, token 0"]),
    (dict(x=X, mask=MASK[:, :2]), ["mask of shape (10, 2)", "booleans [10, 4]"]),
    (dict(x=X, mask=MASK.astype(int)), ["mask of", "int64", "booleans [10, 4]"]),
    (dict(x=X, mask=MASK & (np.arange(N) != 3)[:, None]), ["mask", "at sequence 3", "padding"]),
    (dict(x=X, goal=np.ones((9, 2))), ["goal of shape (9, 2)", "x has 10 sequences"]),
    (dict(x=X, fps=25), ["fps of shape ()", "leave it out"]),
    (dict(x=X, action=np.ones((N, 5), int)), ["cond.action of shape (10, 5)", "of 4 tokens"]),
    (dict(x=X, action=np.ones((N, T, 2), int)), ["cond.action of shape (10, 4, 2)", "give"]),
    (dict(x=X, name=np.full(N, "a")), ["cond.name of", "give"]),
    (dict(x=X, label=np.arange(N) - 1), ["label: -1 at sequence 0", "give 0 or more"]),
    (dict(x=X, action=np.full((N, T), -2)), ["action: -2 at sequence 0, token 0"]),
    (dict(x=X, goal=np.full((N, 2), np.inf)), ["goal: inf at sequence 0, place 0"]),
    (dict(x=np.full((N, T, D), 3.0)), ["x is 3 throughout", "std=None"]),
    (dict(x=np.full((N, T, D), None)), ["Python objects", "numpy.savez"]),
  ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_by_its_array(save, arrays, parts):
  path = save(**arrays)
  with refused(f"data.path: {path}", *parts):
    sequences.npz(4, 0, path=path)


def test_other_wrong_fields_are_named(save, tmp_path):
  with refused("data.path: no file", "numpy.savez", kind=FileNotFoundError):
    sequences.npz(4, 0, path=tmp_path / "absent.npz")
  with refused("data.std=0"):
    sequences.npz(4, 0, path=save(x=X), std=0)
  with refused("data.size=0"):
    sequences.load(save(x=X), 0)
