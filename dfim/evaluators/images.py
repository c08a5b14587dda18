"""Scores of images, in the features of a classifier that the project trains on the same data."""

from collections.abc import Callable
import pathlib
from typing import Any

from absl import logging
import numpy as np

from dfim import pictures
from dfim.metrics import classifier
from dfim.metrics import distances
from dfim.metrics import frechet
from dfim.metrics import neighbours
from dfim.metrics import precision_recall


def scores(
  draw: Callable[..., np.ndarray],
  params: Any,
  *,
  dataset: str,
  reference: dict[str, np.ndarray],
  held_out: dict[str, np.ndarray],
  steps: tuple[int, ...] = (1, 2, 4, 8),
  samples: int = 5000,
  limits: tuple[float, float] = (-1.0, 1.0),
  training_steps: int = 600,
  energy_images: int = 5000,
  cache: str = "~/.cache/dfim",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Compares `samples` samples of each number of `steps` with `reference`.

  Args:
    draw: `sample.make_draw`'s.
    params: the weights to draw with.
    dataset: what the feature space is called after.
    reference: the training data, `x` `[N, H, W, C]` and `label` `[N]`; trains the classifier too.
    held_out: data of the same law, never trained on.
    steps: numbers of network calls.
    samples: how many to draw for each.
    limits: the values of black and white, for the figure.
    training_steps: of the classifier, whose first row of scores tells its accuracy: 600 do for the
      digits; give sets of tens of thousands 2,000 or more.
    energy_images: the energy distance, whose time grows with the square of this, compares with the
      first so many of the reference.
    cache: folder that keeps the classifier's weights.

  Returns:
    The name of the feature space, and a row of scores for each number of steps and for the
    held-out images. Those are a yardstick and no floor: a Frechet distance falls with the number
    of samples, and held-out images are few. In a row: `frechet` (Heusel et al. 1706.08500, in the
    classifier's features), `kernel` and its standard error (KID, Binkowski et al. 1801.01401),
    `energy` (in pixels) and its standard error, `label` (the share of images that the classifier
    takes for their class; chance for a model without classes), `nearest` (the median distance in
    pixels to the nearest training image, over that of held-out images: far below 1 is memorised),
    and in the features `precision` and `recall` (Kynkaanniemi et al. 1904.06991), `density` and
    `coverage` (Naeem et al. 2002.09797) of equally many images of both, the first of each.
    And a figure: samples above their nearest training images.
  """
  folder, data = pathlib.Path(cache).expanduser(), (reference["x"], reference["label"])
  net = classifier.cached(folder, dataset, *data, steps=training_steps)
  name = classifier.name_of(net, dataset, 0)
  space = _Space(net, reference, energy_images)
  beside, _ = space.compare(held_out["x"], held_out["label"])
  logging.info("%s knows %.1f%% of the held-out images.", name, 100 * beside["label"])
  values = {"features": name, "samples": samples, "held out": beside}
  unit = beside["nearest"]
  classes = int(reference["label"].max()) + 1
  figures = {}
  for k in steps:
    x = draw(params, samples, k)
    values[f"{k} steps"], nearest = space.compare(x, np.arange(samples) % classes)
    if k == steps[0]:
      rows = {"samples": x[:40], "nearest training images": reference["x"][nearest[:40]]}
      grids = {name: pictures.picture(images, limits) for name, images in rows.items()}
      figures["nearest"] = pictures.panels(grids)
  for row in ("held out", *(f"{k} steps" for k in steps)):
    values[row]["nearest"] /= unit
  return values, figures


class _Space:
  """Reference data and its features, computed once."""

  def __init__(self, net: classifier.Params, reference: dict[str, np.ndarray], energy_images: int):
    self._net = net
    self._energy_images = energy_images
    self._pixels = reference["x"].reshape(len(reference["x"]), -1)
    self._features = classifier.features(net, reference["x"])
    self._moments = frechet.moments(self._features)

  def compare(self, x: np.ndarray, label: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Scores of images `[N, H, W, C]`, and the index of the training image nearest to each."""
    features = classifier.features(self._net, x)
    pixels = x.reshape(len(x), -1)
    size = min(1000, len(x), len(self._pixels))
    kernel, kernel_se = distances.kernel_distance(features, self._features, subsets=30, size=size)
    energy, energy_se = distances.energy_distance(pixels, self._pixels[: self._energy_images])
    apart, nearest = neighbours.nearest(pixels, self._pixels)
    both = min(len(features), len(self._features))
    values = dict(
      frechet=frechet.frechet_distance(*frechet.moments(features), *self._moments),
      kernel=kernel,
      kernel_se=kernel_se,
      energy=energy,
      energy_se=energy_se,
      label=classifier.accuracy(self._net, x, label),
      nearest=float(np.median(apart)),
      **precision_recall.scores(self._features[:both], features[:both]),
    )
    return values, nearest
