"""Scores of images, in the features of a classifier that the project trains on the same data."""

from collections.abc import Callable
from typing import Any

from absl import logging
import numpy as np

from dfim.evaluators import references
from dfim.io import inputs
from dfim.metrics import classifier, distances, frechet, neighbours, precision_recall, subsets
from dfim.viz import images as pictures


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
    held_out: data of the same distribution, never trained on.
    steps: numbers of steps of the sampler.
    samples: how many to draw for each.
    limits: the values of black and white, for the figure.
    training_steps: of the classifier, whose first row of scores tells its accuracy: 600 do for the
      digits; give sets of tens of thousands 2,000 or more.
    energy_images: the energy distance, whose time grows with the square of this, compares with so
      many images of the reference, chosen by `metrics.subsets`.
    cache: folder that keeps the classifier's weights.

  Returns:
    The name of the feature space, and a row of scores for each number of steps and for the
    held-out images. Those are a yardstick and no floor: a Frechet distance falls with the number
    of samples, and held-out images are few. In a row: `frechet` (Heusel et al. 1706.08500, in the
    classifier's features), `kernel` and its standard error (KID, Binkowski et al. 1801.01401),
    `energy` (in pixels) and its standard error, `label` (the share of images that the classifier
    takes for their class; chance for a model without classes), `nearest` (the median distance in
    pixels to the nearest training image, over that of held-out images: far below 1 is memorised;
    None where most held-out images are training images), and in the features `precision` and
    `recall` (Kynkaanniemi et al. 1904.06991), `density` and `coverage` (Naeem et al. 2002.09797) of
    equally many images of both, chosen by `metrics.subsets`. The order of the images changes no
    score, other than through the classifier, which is trained on the reference in its order.
    And a figure: samples above their nearest training images.
  """
  data = reference["x"], reference["label"]
  net = classifier.cached(inputs.path(cache, "cache"), dataset, *data, steps=training_steps)
  name = classifier.name_of(net, dataset, 0)
  space = _Space(net, reference, energy_images)
  yardstick, _ = space.compare(held_out["x"], held_out["label"])
  logging.info("%s knows %.1f%% of the held-out images.", name, 100 * yardstick["label"])
  values = {"features": name, "samples": samples, "held out": yardstick}
  unit = yardstick["nearest"]
  labels = np.resize(np.unique(reference["label"]), samples)  # as the sampler draws them
  figures = {}
  for k in steps:
    x = draw(params, samples, k)
    values[f"{k} steps"], nearest = space.compare(x, labels)
    if k == steps[0]:
      rows = {"samples": x[:40], "nearest training images": reference["x"][nearest[:40]]}
      grids = {name: pictures.picture(images, limits) for name, images in rows.items()}
      figures["nearest"] = pictures.panels(grids)
  for row in ("held out", *(f"{k} steps" for k in steps)):
    values[row]["nearest"] = values[row]["nearest"] / unit if unit else None
  return values, figures


def check_scores(
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
  labels: tuple[int, ...] = (),
) -> None:
  """Refuses arguments of `scores` that it cannot take, before anything is trained.

  Makes the folder `cache` where the classifier is not there yet. `labels` are the classes that the
  sampler draws, if it draws any.

  Raises:
    ValueError: naming the argument.
  """
  del steps, limits  # which every evaluator's are checked for
  if not dataset or set(dataset) & set("/\\"):
    raise ValueError(f"dataset={dataset!r}: give a name that can be part of a file's name.")
  least = precision_recall.LEAST_POINTS
  x, y = (
    references.examples(data, field, 4, least=least)
    for field, data in dict(reference=reference, held_out=held_out).items()
  )
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(
      f"held_out.x: images of shape {y.shape[1:]}, and reference.x of {x.shape[1:]}: give the same."
    )
  given = references.part(reference, "reference", "label")
  occurring = np.unique(classifier.checked_labels(given, len(x), "reference.label"))
  if labels and occurring.tolist() != list(labels):
    raise ValueError(
      f"reference.label: {len(occurring)} classes, and samples are of {len(labels)}: give the data"
      " that the network is trained on."
    )
  classes = int(occurring.max()) + 1
  known = references.part(held_out, "held_out", "label")
  known = classifier.checked_labels(known, len(y), "held_out.label")
  fix = f"the reference has {classes} classes"
  inputs.refuse_where(known >= classes, known, "held_out.label", ("image",), fix)
  inputs.whole(samples, "samples", low=least)
  inputs.whole(energy_images, "energy_images", low=3)
  _check_copies(x, y)
  _check_cache(cache, dataset, reference["x"], given, training_steps)


def _check_copies(x: np.ndarray, y: np.ndarray) -> None:
  """Refuses held-out images whose median distance to the reference, a unit, is 0."""
  fresh = np.isin(subsets.keys(y), subsets.keys(x), invert=True)
  if np.median(fresh) == 0:
    raise ValueError(
      f"held_out: {len(y) - fresh.sum()} of its {len(y)} images are in reference too; give images"
      " that are not trained on, such as those of the test split."
    )


def _check_cache(
  cache: str, dataset: str, x: np.ndarray, labels: np.ndarray, training_steps: int
) -> None:
  """Refuses a folder that cannot keep the classifier, or that holds a damaged one."""
  path = classifier.path_of(inputs.path(cache, "cache"), dataset, x, labels, steps=training_steps)
  try:
    classifier.check_cache(path, x, labels)
  except OSError as error:
    raise ValueError(
      f"cache={cache}: {path} cannot be written ({error.strerror}); give a folder that can."
    ) from None
  except ValueError as error:
    raise ValueError(f"cache={cache}: {error}.") from None


class _Space:
  """Reference data and its features, computed once."""

  def __init__(self, net: classifier.Params, reference: dict[str, np.ndarray], energy_images: int):
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
    values = dict(
      frechet=frechet.frechet_distance(*frechet.moments(features), *self._moments),
      kernel=kernel,
      kernel_se=kernel_se,
      energy=energy,
      energy_se=energy_se,
      label=classifier.accuracy(self._net, x, label),
      nearest=float(np.median(apart)),
      **precision_recall.scores(self._features[theirs], features[ours]),
    )
    return values, nearest
