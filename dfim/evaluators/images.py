"""Scores of images, in the features of a classifier that the project trains on the same data."""

from typing import Any

from absl import logging
import numpy as np

from dfim.config.errors import FieldError
from dfim.evaluators import references
from dfim.evaluators.references import Data, Draw, Found
from dfim.io import inputs
from dfim.metrics import classifier, distances, frechet, neighbours, precision_recall, subsets
from dfim.viz import images as pictures


def scores(
  draw: Draw,
  params: Any,
  *,
  dataset: str,
  reference: Data,
  held_out: Data,
  steps: tuple[int, ...] = (1, 2, 4, 8),
  samples: int = 5000,
  limits: tuple[float, float] = (-1.0, 1.0),
  training_steps: int = 600,
  energy_images: int = 5000,
  cache: str = "~/.cache/dfim",
) -> Found:
  """Compares `samples` samples of each number of `steps` with `reference`; see docs/scores.md.

  `reference` is the training data, `x` `[N, H, W, C]` and `label` `[N]`, and trains the classifier,
  for `training_steps`, whose weights are kept in `cache` under `dataset`; `held_out` is never
  trained on. `energy_images` of the reference enter the energy distance; `limits` are the values of
  black and white. The figure shows samples above their nearest training images.
  """
  data = reference["x"], reference["label"]
  net = classifier.cached(inputs.path(cache, "cache"), dataset, *data, steps=training_steps)
  name = classifier.name_of(net, dataset)
  space = _Space(net, reference, energy_images)
  yardstick, _ = space.compare(held_out["x"], held_out["label"])
  logging.info("%s knows %.1f%% of the held-out images.", name, 100 * yardstick["label"])
  rows, figures = {"held out": yardstick}, {}
  labels = np.resize(np.unique(reference["label"]), samples)  # as the sampler draws them
  for k in steps:
    x = draw(params, samples, k)
    rows[f"{k} steps"], nearest = space.compare(x, labels)
    if not figures:
      pairs = {"samples": x[:40], "nearest training images": reference["x"][nearest[:40]]}
      grids = {title: pictures.picture(images, limits) for title, images in pairs.items()}
      figures["nearest"] = pictures.panels(grids)
  unit = yardstick["nearest"]
  for row in rows.values():
    row["nearest"] = row["nearest"] / unit if unit else None
  return {"features": name, "samples": samples} | rows, figures


def check_scores(
  *,
  dataset: str,
  reference: Data,
  held_out: Data,
  samples: int = 5000,
  training_steps: int = 600,
  energy_images: int = 5000,
  cache: str = "~/.cache/dfim",
  labels: tuple[int, ...] = (),
  **_: Any,
) -> None:
  """Raises ValueError for arguments that `scores` cannot take; `labels` are those to sample."""
  if not dataset or set(dataset) & set("/\\"):
    raise FieldError("dataset", dataset, "give a name that can be part of a file's name.")
  least = precision_recall.LEAST_POINTS
  x = references.examples(reference, "reference", 4, least=least)
  y = references.examples(held_out, "held_out", 4, least=least)
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(f"held_out.x: of shape {y.shape[1:]}, reference.x of {x.shape[1:]}.")
  given = references.part(reference, "reference", "label")
  occurring = np.unique(classifier.checked_labels(given, len(x), "reference.label"))
  if labels and occurring.tolist() != list(labels):
    counts = f"{len(occurring)} classes, and samples are of {len(labels)}"
    raise ValueError(f"reference.label: {counts}: give the network's training data.")
  classes = int(occurring.max()) + 1
  known = references.part(held_out, "held_out", "label")
  known = classifier.checked_labels(known, len(y), "held_out.label")
  fix = f"the reference has {classes} classes"
  inputs.refuse_where(known >= classes, known, "held_out.label", ("image",), fix)
  inputs.whole(samples, "samples", low=least)
  inputs.whole(energy_images, "energy_images", low=3)
  fresh = np.isin(subsets.keys(y), subsets.keys(x), invert=True)
  if np.median(fresh) == 0:  # the unit of `nearest`
    said = f": {len(y) - fresh.sum()} of its {len(y)} images are in reference too; "
    raise FieldError("held_out", held_out, "give those of a test split.", said)
  folder = inputs.path(cache, "cache")
  try:
    classifier.check_cache(folder, dataset, reference["x"], given, steps=training_steps)
  except ValueError as error:
    raise FieldError("cache", cache, f"{error}.") from None


class _Space:
  def __init__(self, net: classifier.Params, reference: Data, energy_images: int):
    self._net = net
    self._pixels = reference["x"].reshape(len(reference["x"]), -1)
    self._energy_pixels = self._pixels[subsets.choose(self._pixels, energy_images)]
    self._features = classifier.features(net, reference["x"])
    self._moments = frechet.moments(self._features)

  def compare(self, x: np.ndarray, label: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Scores of images `[N, H, W, C]`, and the index of the training image nearest to each."""
    features = classifier.features(self._net, x)
    pixels = x.reshape(len(x), -1)
    size = min(1000, len(x), len(self._pixels))
    kernel, kernel_se = distances.kernel_distance(features, self._features, subsets=30, size=size)
    energy, energy_se = distances.energy_distance(pixels, self._energy_pixels)
    apart, nearest = neighbours.nearest(pixels, self._pixels)
    both = min(len(features), len(self._features))
    ours, theirs = subsets.choose(pixels, both), subsets.choose(self._pixels, both)
    values = dict(frechet=frechet.frechet_distance(*frechet.moments(features), *self._moments))
    values |= dict(kernel=kernel, kernel_se=kernel_se, energy=energy, energy_se=energy_se)
    values |= dict(label=classifier.accuracy(self._net, x, label), nearest=float(np.median(apart)))
    return values | precision_recall.scores(self._features[theirs], features[ours]), nearest
