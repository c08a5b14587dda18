"""The packed file, made here from a stand-in for the prepared set."""

import numpy as np
from PIL import Image
import pytest

from dfim.data.images import cifar, sets
from tests.conftest import shared
from tests.data.helpers import assert_equal, refused

COUNTS = dict(train=20, test=8)


def pictures(split):
  pixels = np.random.default_rng(len(split)).integers(0, 256, (COUNTS[split], 32, 32, 3), np.uint8)
  return pixels, np.arange(COUNTS[split]) % 10


def load_tfds(dataset, split, data_dir):
  assert (dataset, data_dir) == ("cifar10", "there")
  pixels, labels = pictures(split)
  return dict(x=pixels.astype(np.float32) / np.float32(127.5) - 1, label=labels)


@pytest.fixture
def path(tmp_path, monkeypatch):
  monkeypatch.setattr(sets, "load_tfds", load_tfds)
  cifar.pack(tmp_path / "cifar10.npz", "there")
  return tmp_path / "cifar10.npz"


def rewrite(path, **change):
  with np.load(path) as file:
    np.savez(path, **(dict(file) | change))


def test_packing_loses_nothing_and_examples_are_the_stored_pictures(path):
  for split in COUNTS:
    data, (pixels, labels) = cifar.load(path, split), pictures(split)
    assert data["x"].dtype == np.float32 and data["label"].dtype == np.int32
    np.testing.assert_array_equal(np.rint((data["x"] + 1) * 127.5), pixels)
    np.testing.assert_array_equal(data["label"], labels)
  batches = cifar.cifar10(4, 0, path=path, split="test")
  assert batches.size == 8 and batches.labels.tolist() == list(range(8))
  assert_equal(batches.examples(np.array([7, 0])), dict(x=pixels[[7, 0]], label=labels[[7, 0]]))


def test_pictures_are_decoded_once_unless_the_file_changes_or_is_missing(
  path, monkeypatch, tmp_path
):
  before = cifar.load(path)["x"]
  with pytest.raises(ValueError, match="read-only"):
    cifar.load(path)["label"][0] = 7
  with monkeypatch.context() as patch:
    patch.setattr(Image, "open", None)
    cifar.load(path)
    next(cifar.cifar10(4, 0, path=path, split="test"))
  rewrite(path, test_labels=np.arange(8)[::-1])
  assert cifar.load(path)["label"][0] == 7
  np.testing.assert_array_equal(cifar.load(path)["x"], before)
  with refused("data.path", tmp_path / "no.npz", "cifar.pack(", kind=FileNotFoundError):
    cifar.cifar10(4, 0, path=tmp_path / "no.npz")
  for split in ("val", None, ["test"]):
    with refused("data.split", split):
      cifar.load(path, split)


@pytest.mark.parametrize(
  "label, place", [(None, "split 'train'"), (np.array([255, 256], np.int32), "256 at example 1")]
)
def test_labels_that_do_not_fit_are_not_packed(label, place, monkeypatch, tmp_path):
  data = dict(x=np.zeros((2, 32, 32, 3), np.float32))
  found = data if label is None else data | dict(label=label)
  monkeypatch.setattr(sets, "load_tfds", lambda *_: dict(found))
  with refused("dataset: cifar10", place):
    cifar.pack(tmp_path / "a.npz", "there")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "change, place",
  [
    (dict(test_labels=np.arange(8) + 2**31 - 2), "test_labels: 2147483648 at example 2"),
    (dict(test_labels=np.arange(3)), "test_labels"),
    (dict(test_bytes=np.zeros(9000, np.uint8)), "damaged"),
  ],
)
def test_a_damaged_file_is_refused(change, place, path):
  rewrite(path, **change)
  with refused("data.path", path, place):
    cifar.load(path)


def test_the_real_test_set_is_whole():
  data = cifar.load(shared("data/cifar10_webp.npz"))
  assert data["x"].shape == (10_000, 32, 32, 3)
  np.testing.assert_array_equal(np.bincount(data["label"]), np.full(10, 1000))
  assert abs(data["x"].std() - 0.5) < 0.01  # IMM's sigma_data
