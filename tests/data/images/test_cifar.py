"""The packed file, made here from a stand-in for the prepared set."""

import itertools
import pathlib

import numpy as np
from PIL import Image
import pytest

from dfim.data.images import cifar, sets

REAL = pathlib.Path(__file__).parents[2] / "../shared/data/cifar10_webp.npz"
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


@pytest.mark.parametrize("split", COUNTS)
def test_packing_loses_nothing(path, split):
  data, (pixels, labels) = cifar.load(path, split), pictures(split)
  assert data["x"].dtype == np.float32 and data["label"].dtype == np.int32
  np.testing.assert_array_equal(np.rint((data["x"] + 1) * 127.5), pixels)
  np.testing.assert_array_equal(data["label"], labels)


def test_an_epoch_holds_each_picture_once_and_starts_anywhere(path):
  batches = list(itertools.islice(cifar.cifar10(10, 3, path=path), 2))
  seen = np.concatenate([b["x"] for b in batches])
  assert sorted(map(bytes, seen)) == sorted(map(bytes, cifar.load(path, "train")["x"]))
  np.testing.assert_array_equal(next(cifar.cifar10(10, 3, 1, path=path))["x"], batches[1]["x"])


def test_pictures_are_decoded_once(path, monkeypatch):
  cifar.load(path)
  monkeypatch.setattr(Image, "open", None)
  cifar.load(path)
  next(cifar.cifar10(4, 0, path=path, split="test"))


def test_a_file_that_changed_is_read_anew(path):
  before = cifar.load(path)["x"]
  with np.load(path) as file:
    data = dict(file)
  data["test_labels"] = data["test_labels"][::-1]
  np.savez(path, **data)
  assert cifar.load(path)["label"][0] == 7
  np.testing.assert_array_equal(cifar.load(path)["x"], before)


def test_nobody_writes_to_what_is_kept(path):
  with pytest.raises(ValueError, match="read-only"):
    cifar.load(path)["label"][0] = 7


def test_examples_are_the_stored_pictures(path):
  batches = cifar.cifar10(4, 0, path=path, split="test")
  pixels, labels = pictures("test")
  found = batches.examples(np.array([7, 0]))
  assert batches.size == 8 and batches.labels.tolist() == list(range(8))
  np.testing.assert_array_equal(found["x"], pixels[[7, 0]])
  np.testing.assert_array_equal(found["label"], labels[[7, 0]])


def unlabelled(dataset, split, data_dir):
  return dict(x=np.zeros((2, 32, 32, 3), np.float32))


def beyond(dataset, split, data_dir):
  return unlabelled(dataset, split, data_dir) | dict(label=np.array([255, 256], np.int32))


@pytest.mark.parametrize(
  "load, place", [(unlabelled, "has no labels of split 'train'"), (beyond, "256 at example 1")]
)
def test_labels_that_do_not_fit_are_not_packed(load, place, monkeypatch, tmp_path):
  monkeypatch.setattr(sets, "load_tfds", load)
  with pytest.raises(ValueError, match=f"^dataset: cifar10.* {place}"):
    cifar.pack(tmp_path / "a.npz", "there")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "labels, place",
  [
    (np.arange(8) + 2**31 - 2, "test_labels: 2147483648 at example 2"),
    (np.arange(8) - 1, "test_labels: -1 at example 0"),
    (np.arange(8.0), "test_labels of float64"),
  ],
)
def test_labels_never_wrap(labels, place, path):
  with np.load(path) as file:
    data = dict(file)
  np.savez(path, **(data | dict(test_labels=labels)))
  with pytest.raises(ValueError, match=place) as error:
    cifar.load(path)
  one_line(error, "data.path", path, "damaged")


def one_line(error, *parts):
  message = str(error.value)
  assert "\n" not in message
  for part in parts:
    assert str(part) in message


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    cifar.cifar10(4, 0, path=tmp_path / "no.npz")
  one_line(error, "data.path", tmp_path / "no.npz", "cifar.pack(", "--config=configs/imm_cifar.py")


def test_an_unknown_split_is_named(path):
  for split in ("val", None, ["test"]):
    with pytest.raises(ValueError, match="data.split: .* is not one of train, test"):
      cifar.load(path, split)


@pytest.mark.parametrize("damage", ["cut", "junk", "no arrays", "garbled", "few labels", "ends"])
def test_a_damaged_file_is_refused_in_one_line(path, damage):
  with np.load(path) as file:
    data = dict(file)
  if damage == "cut":
    path.write_bytes(path.read_bytes()[:-500])
  elif damage == "junk":
    path.write_bytes(b"junk")
  else:
    data["test_bytes"] = (
      np.zeros_like(data["test_bytes"]) if damage == "garbled" else (data["test_bytes"])
    )
    data["test_labels"] = data["test_labels"][: 3 if damage == "few labels" else None]
    data["test_offsets"] = data["test_offsets"] * (2 if damage == "ends" else 1)
    np.savez(path, **({} if damage == "no arrays" else data))
  with pytest.raises(ValueError) as error:
    cifar.load(path)
  one_line(error, "data.path", path, "damaged", "anew")


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_the_real_test_set_is_whole():
  data = cifar.load(REAL)
  assert data["x"].shape == (10_000, 32, 32, 3)
  np.testing.assert_array_equal(np.bincount(data["label"]), np.full(10, 1000))
  assert abs(data["x"].std() - 0.5) < 0.01  # IMM's sigma_data
