"""Scores of images in the features of a classifier of the same data."""

import re

import numpy as np
import pytest

from dfim import evaluate
from dfim.data.images import digits
from dfim.evaluators import images
from dfim.metrics import classifier
from tests.data.helpers import refused

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
  data = dict(reference=shapes(0, 120, size, channels), held_out=shapes(1, 60, size, channels))
  given = dict(dataset="shapes", steps=(1,), samples=80, training_steps=30, cache=str(tmp_path))
  return images.scores(draw, None, **given | data | how)


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
  drawn = fresh, train[:80], np.repeat(fresh[::2], 2, 0), fresh[::-1] * 3
  good, copied, one_class, noise = (score(tmp_path, lambda *_, x=x: x)[0]["1 steps"] for x in drawn)
  assert good["precision"] > 0.6 and good["recall"] > 0.6 and good["coverage"] > 0.7
  assert copied["nearest"] == 0 and min(copied["precision"], copied["recall"]) > 0.9
  assert one_class["recall"] < 0.7 * good["recall"] and one_class["precision"] > 0.6
  assert noise["precision"] < 0.2 and noise["frechet"] > 10 * good["frechet"]
  assert noise["energy"] > 10 * abs(good["energy"])


@pytest.fixture(scope="module")
def rough():
  """A classifier of the digits, trained for a few steps on rows in their own order."""
  data = digits.load("train")
  return classifier.train(data["x"], data["label"], steps=40)


def part_of(data, count, by_class):
  """The first rows of the digits, which are shuffled, or the same rows sorted by class."""
  order = np.argsort(data["label"][:count], kind="stable") if by_class else np.arange(count)
  return {name: a[:count][order] for name, a in data.items()}


@pytest.fixture
def digits_of(tmp_path, monkeypatch, rough):
  """`(reference, held_out, x) -> rows` of scores of digits x, with a classifier that is there."""
  monkeypatch.setattr(classifier, "cached", lambda *_, **__: rough)

  def rows(reference, held_out, x, **how):
    data = dict(dataset="digits", reference=reference, held_out=held_out, cache=str(tmp_path))
    return images.scores(lambda *_: x, None, **data, samples=len(x), steps=(1,), **how)[0]

  return rows


@pytest.mark.parametrize("counts", [(300, 80), (80, 300)])
def test_no_score_depends_on_the_order_of_the_data(digits_of, counts):
  """Real digits, more of the reference than others or fewer; the samples are digits too."""

  def found(by_class):
    reference = part_of(digits.load("train"), counts[0], by_class)
    held_out = part_of(digits.load("test"), counts[1], by_class)
    return digits_of(reference, held_out, held_out["x"], energy_images=60)

  shuffled, by_class = found(False), found(True)
  for row in ("held out", "1 steps"):
    del shuffled[row]["label"], by_class[row]["label"]  # the samples have classes by their index
    assert by_class[row] == pytest.approx(shuffled[row], rel=1e-9, abs=1e-9)


def checked(tmp_path, **change):
  reference, held_out = (shapes(seed, n, 8, 1) for seed, n in ((0, 20), (1, 12)))
  data = dict(reference=reference, held_out=held_out)
  images.check_scores(**dict(dataset="shapes", cache=str(tmp_path / "new")) | data | change)


SHAPES, HELD_OUT = shapes(0, 20, 8, 1), shapes(1, 12, 8, 1)
PARTLY = {name: np.concatenate([a[:7], a[7:13] + (name == "x")]) for name, a in SHAPES.items()}


@pytest.mark.parametrize(
  "change, place",
  [
    (dict(held_out=SHAPES), "held_out: 20 of its 20 images"),
    (dict(held_out=PARTLY), "held_out: 7 of its 13 images"),
    (dict(reference=dict(x=SHAPES["x"])), "reference: has no label"),
    (dict(reference=SHAPES | dict(x=SHAPES["x"] + np.nan)), "reference.x: nan at image 0, row 0"),
    (dict(held_out={k: a[:5] for k, a in SHAPES.items()}), "held_out.x of 5 images"),
    (dict(held_out=HELD_OUT | dict(label=np.full(12, 2))), "held_out.label: 2 at image 0"),
    (dict(labels=(0, 1, 2)), "reference.label"),
    (dict(dataset="a/b"), "dataset="),
    (dict(cache="/dev/null/cache"), "cache="),
  ],
)
def test_arguments_that_would_fail_after_training_are_refused(tmp_path, change, place):
  with refused(place):
    checked(tmp_path, **change)


def test_copies_of_the_reference_are_no_yardstick(tmp_path):
  fresh = shapes(2, 80, 8, 1)["x"]
  values, _ = score(tmp_path, lambda *_: fresh, held_out=shapes(0, 120, 8, 1))
  row = values["1 steps"]
  assert row.pop("nearest") is None and np.isfinite(list(row.values())).all()


def test_a_damaged_classifier_in_the_cache_is_found_before_training(tmp_path):
  score(tmp_path, lambda *_: shapes(2, 80, 8, 1)["x"])
  (path,) = tmp_path.iterdir()
  how = dict(reference=shapes(0, 120, 8, 1), training_steps=30, cache=str(tmp_path))
  checked(tmp_path, **how)
  path.write_bytes(path.read_bytes()[:-100])
  with refused("cache=", "damaged"):
    checked(tmp_path, **how)


def test_the_digits_keep_their_feature_space(tmp_path, monkeypatch):
  """Results are published in it: its data, seed and steps may not move."""
  data = digits.load("train")
  seen = {}
  monkeypatch.setattr(classifier, "train", lambda x, labels, **how: seen.update(how) or {})
  classifier.cached(tmp_path, "digits", data["x"], data["label"])
  assert seen == dict(steps=600)
  assert [p.name for p in tmp_path.iterdir()] == ["digits-cnn64-seed0-steps600-datac9b691.npz"]
