import re

import jax
import numpy as np
import pytest

from dfim.data.images import digits
from dfim.metrics import classifier, features
from tests.data.helpers import refused
from tests.models import time_path

pytestmark = pytest.mark.usefixtures("optimized", "keys_unchecked")  # 6 s of training, not 100

TRAIN, TEST = digits.load("train"), digits.load("test")
FEW = TRAIN["x"][:64], TRAIN["label"][:64]


@pytest.fixture(scope="module")
def params():
  return classifier.train(TRAIN["x"], TRAIN["label"])


@pytest.fixture(scope="module")
def rough():
  return classifier.train(*FEW, steps=3)


def test_reads_held_out_digits_by_features_that_do_not_depend_on_the_batch(params, monkeypatch):
  assert classifier.accuracy(params, TEST["x"], TEST["label"]) > 0.97
  whole = classifier.features(params, TEST["x"])
  assert whole.shape == (360, classifier.WIDTH) and whole.dtype == np.float32
  monkeypatch.setattr(classifier, "_BATCH", 5)
  np.testing.assert_allclose(classifier.features(params, TEST["x"][:7]), whole[:7], atol=1e-4)


def test_features_are_the_same_whatever_the_platforms_precision(rough, monkeypatch):
  marks = time_path.PARAMS, time_path.X
  read = lambda network, params, x, _: time_path.products(network, marks, params, x)
  monkeypatch.setattr(features, "in_batches", read)
  found = classifier.features(rough, TEST["x"][:1])
  assert len(found) == 4 and all(map(time_path.exact, found))


def test_the_name_is_of_the_set_and_the_weights(rough):
  name = classifier.name_of(rough, "digits")
  assert re.fullmatch(r"digits-cnn64-seed0-[0-9a-f]{6}", name)
  assert name == classifier.name_of(classifier.train(*FEW, steps=3), "digits")
  assert name != classifier.name_of(classifier.train(*FEW, steps=4), "digits")


BAD = FEW[0].copy()
BAD[5] = np.nan


@pytest.mark.parametrize(
  "x, labels, place",
  [
    (FEW[0][..., 0], FEW[1], "x of shape (64, 8, 8)"),
    (BAD, FEW[1], "x: nan at image 5"),
    (FEW[0], FEW[1][:3], "labels of shape (3,)"),
  ],
)
def test_refuses_wrong_images_and_labels(x, labels, place, rough):
  with refused(place):
    classifier.train(x, labels, steps=1)
  with refused(place):
    classifier.accuracy(rough, x, labels)
  if place.startswith("x"):
    with refused(place):
      classifier.features(rough, x)


def test_the_cache_returns_the_weights_that_it_kept(tmp_path, monkeypatch):
  first = classifier.cached(tmp_path, "digits", *FEW, steps=3)
  monkeypatch.setattr(classifier, "train", lambda *_, **__: pytest.fail("trained again"))
  again = classifier.cached(tmp_path, "digits", *FEW, steps=3)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert len(list(tmp_path.iterdir())) == 1  # no temporary file stays


def test_load_refuses_other_networks_and_flipped_bits(tmp_path, rough):
  path = tmp_path / "a.npz"
  for change in (dict(hidden=rough["hidden"][:-1]), dict(hidden=rough["hidden"] * np.nan)):
    np.savez(path, **rough | change)
    with refused(path, "another network"):
      classifier.load(path, rough)
  np.savez(path, **rough)
  whole = path.read_bytes()
  path.write_bytes(whole.replace(whole[2000:2004], b"abcd"))
  with refused(path, "damaged"):
    classifier.load(path, rough)
