"""Scores of images in the features of a classifier of the same data."""

import re

import numpy as np
import pytest

from dfim import evaluate
from dfim.data import digits
from dfim.evaluators import images
from dfim.metrics import classifier
from dfim.metrics import distances

pytestmark = pytest.mark.usefixtures("optimized")  # a classifier is trained in each


def shapes(seed, count, size, channels):
  """Labelled images of two classes, bright above or below, and noise."""
  rng = np.random.default_rng(seed)
  label = np.arange(count) % 2
  x = rng.normal(0, 0.3, (count, size, size, channels))
  x[label == 0, : size // 2] += 0.5
  x[label == 1, size // 2 :] += 0.5
  return dict(x=x.astype(np.float32), label=label.astype(np.int32))


def score(tmp_path, draw, *, size=8, channels=1, **how):
  reference, held_out = (shapes(seed, n, size, channels) for seed, n in ((0, 120), (1, 60)))
  values, figures = images.scores(
    draw,
    None,
    dataset="shapes",
    reference=reference,
    held_out=held_out,
    steps=(1,),
    samples=80,
    training_steps=30,
    cache=str(tmp_path),
    **how,
  )
  return values, figures


@pytest.mark.parametrize("size, channels", [pytest.param(8, 1, marks=pytest.mark.slow), (32, 3)])
def test_any_loader_has_a_feature_space(tmp_path, size, channels):
  fresh = shapes(2, 80, size, channels)["x"]
  values, figures = score(tmp_path, lambda *_: fresh, size=size, channels=channels)
  assert re.fullmatch("shapes-cnn64-seed0-[0-9a-f]{6}", values["features"])
  assert values["held out"]["label"] > 0.95 and values["1 steps"]["label"] > 0.95
  assert len(list(tmp_path.glob("shapes-cnn64-seed0-steps30-*.npz"))) == 1
  assert figures["nearest"].ndim == 3
  assert values["1 steps"].keys() == values["held out"].keys()
  assert "1 steps" in evaluate.table(values)


def test_each_score_sees_its_own_fault(tmp_path):
  fresh, train = shapes(2, 80, 8, 1)["x"], shapes(0, 120, 8, 1)["x"]
  good, copied, one_class, noise = (
    score(tmp_path, lambda *_, x=x: x)[0]["1 steps"]
    for x in (
      fresh,
      train[:80],
      np.repeat(fresh[::2], 2, 0),
      np.zeros_like(fresh) + fresh[::-1] * 3,
    )
  )
  assert good["precision"] > 0.6 and good["recall"] > 0.6 and good["coverage"] > 0.7
  assert copied["nearest"] == 0 and copied["precision"] == copied["recall"] == 1
  assert one_class["recall"] < 0.7 * good["recall"] and one_class["precision"] > 0.6
  assert noise["precision"] < 0.2 and noise["frechet"] > 10 * good["frechet"]
  assert noise["energy"] > 10 * abs(good["energy"])


def test_the_energy_distance_takes_the_first_images(tmp_path):
  fresh = shapes(2, 80, 8, 1)["x"]
  values, _ = score(tmp_path, lambda *_: fresh, energy_images=50)
  first = shapes(0, 120, 8, 1)["x"][:50]
  assert values["1 steps"]["energy"] == distances.energy_distance(fresh, first)[0]


def test_the_digits_keep_their_feature_space(tmp_path, monkeypatch):
  """Results are published in it: its data, seed and steps may not move."""
  data = digits.load("train")
  seen = {}
  monkeypatch.setattr(classifier, "train", lambda x, labels, **how: seen.update(how) or {})
  classifier.cached(tmp_path, "digits", data["x"], data["label"])
  assert seen == dict(seed=0, steps=600)
  assert [p.name for p in tmp_path.iterdir()] == ["digits-cnn64-seed0-steps600-datac9b691.npz"]
