import re

import jax
import numpy as np
import pytest

from dfim.data.images import digits
from dfim.metrics import classifier

pytestmark = pytest.mark.usefixtures("optimized", "keys_unchecked")  # 6 s of training, not 100

TRAIN, TEST = digits.load("train"), digits.load("test")
FEW = TRAIN["x"][:64], TRAIN["label"][:64]


@pytest.fixture(scope="module")
def params():
  return classifier.train(TRAIN["x"], TRAIN["label"])


@pytest.fixture(scope="module")
def rough():
  return classifier.train(*FEW, steps=3)


def test_reads_held_out_digits(params):
  assert classifier.accuracy(params, TEST["x"], TEST["label"]) > 0.97


def test_features_do_not_depend_on_the_batch(params):
  whole = classifier.features(params, TEST["x"])
  assert whole.shape == (360, classifier.WIDTH) and whole.dtype == np.float32
  np.testing.assert_allclose(
    classifier.features(params, TEST["x"][:7], batch_size=5), whole[:7], atol=1e-4
  )


def test_the_name_tells_set_seed_and_weights(rough):
  name = classifier.name_of(rough, "digits", 0)
  assert re.fullmatch(r"digits-cnn64-seed0-[0-9a-f]{6}", name)
  assert name == classifier.name_of(classifier.train(*FEW, steps=3), "digits", 0)
  other = classifier.train(*FEW, steps=3, seed=1)
  assert name[-6:] != classifier.name_of(other, "digits", 1)[-6:]


@pytest.mark.parametrize("shape", [(7, 5, 3), (28, 28, 1)])
def test_takes_any_size_of_image(shape):
  x = np.zeros((4, *shape), np.float32)
  params = classifier.train(x, np.arange(4), steps=1, batch_size=2)
  assert classifier.features(params, x, batch_size=4).shape == (4, classifier.WIDTH)


@pytest.mark.parametrize("side, hidden", [(8, 2 * 2), (16, 4 * 4), (28, 4 * 4), (32, 4 * 4)])
def test_larger_images_are_halved_once_more(side, hidden):
  params = classifier.train(np.zeros((2, side, side, 1)), np.arange(2), steps=1, batch_size=2)
  assert params["hidden"].shape == (hidden * 64, classifier.WIDTH)


def test_refuses_what_are_not_labelled_images():
  x, labels = FEW
  for images, classes, line in (
    (x[..., 0], labels, r"x of shape \(64, 8, 8\)"),
    (x[:0], labels[:0], "x of 0 images"),
    (x + np.where(np.arange(64) == 5, np.nan, 0).reshape(-1, 1, 1, 1), labels, "x: nan at image 5"),
    (x, labels[:3], r"labels of shape \(3,\)"),
    (x, labels / 2, "labels of float"),
    (x, labels - 1, "labels: -1 at image"),
    (x, labels + np.int64(2**40), "labels: .* at image 0"),
  ):
    with pytest.raises(ValueError, match=line):
      classifier.train(images, classes, steps=1)


def test_takes_pixels_of_any_type(rough):
  x, labels = np.round(127 * (FEW[0] + 1)), FEW[1]
  expected = classifier.features(rough, x.astype(np.float32))
  for dtype in (np.uint8, np.uint16, np.int64, np.float64):
    np.testing.assert_array_equal(classifier.features(rough, x.astype(dtype)), expected)
  assert classifier.accuracy(rough, x, labels.astype(np.uint8)) == classifier.accuracy(
    rough, x.astype(np.uint8), labels
  )


def test_scores_refuse_what_has_none(rough):
  with pytest.raises(ValueError, match="x: nan at image 0"):
    classifier.features(rough, FEW[0] * np.nan)
  with pytest.raises(ValueError, match=r"labels of shape \(1,\)"):
    classifier.accuracy(rough, FEW[0], FEW[1][:1])


def test_the_cache_returns_the_weights_that_it_kept(tmp_path, monkeypatch):
  first = classifier.cached(tmp_path, "digits", *FEW, steps=3)
  monkeypatch.setattr(classifier, "train", lambda *_, **__: pytest.fail("trained again"))
  again = classifier.cached(tmp_path, "digits", *FEW, steps=3)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert len(list(tmp_path.iterdir())) == 1  # no temporary file stays


def test_the_cache_knows_data_and_seed_apart(tmp_path):
  x, labels = FEW
  for scale, seed in ((1, 0), (1, 1), (2, 0)):
    classifier.cached(tmp_path, "digits", x * scale, labels, seed=seed, steps=1)
  assert len(list(tmp_path.glob("digits-cnn64-seed*.npz"))) == 3


def test_load_refuses_other_shapes_and_damaged_files(tmp_path, rough):
  path = tmp_path / "a.npz"
  classifier.save(path, rough | dict(hidden=rough["hidden"][:-1]))
  with pytest.raises(ValueError, match="weights of another network; delete it"):
    classifier.load(path, rough)
  classifier.save(path, rough | dict(hidden=rough["hidden"] * np.nan))
  with pytest.raises(ValueError, match="delete it"):
    classifier.load(path, rough)
  classifier.save(path, rough)
  whole = path.read_bytes()
  for content in b"", b"junk", whole[: len(whole) // 2], whole.replace(whole[2000:2004], b"abcd"):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.npz: .* delete it"):
      classifier.load(path, rough)
