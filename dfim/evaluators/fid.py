"""FID: the Frechet distance in the features of the Inception network of 2015, from files.

Nothing is downloaded. Each result names the weights and the reference statistics by the sha256 of
their numbers; FIDs compare where both are the same, and so are `samples` and `resize`.
"""

from collections.abc import Callable
import os
import pathlib
from typing import Any

import numpy as np

from dfim.evaluators import references
from dfim.interop import weights
from dfim.io import inputs
from dfim.metrics import (
  adm,
  features as features_lib,
  frechet,
  inception,
  precision_recall,
  subsets,
)

Moments = tuple[np.ndarray, np.ndarray]
_FILE = "pt_inception-2015-12-05-6726825d.pth"
_SOURCE = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{_FILE}"


def network(path: str | os.PathLike) -> inception.Params:
  """The weights in pytorch-fid's file, read without running anything in it, or in a copy of it.

  A copy is an .npz or a .safetensors file of the same arrays under the same names.

  Raises:
    FileNotFoundError: no such file; names the command that fetches it.
    ValueError: naming the first parameter that is missing or of another shape.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    fetched = path.with_name(_FILE)
    raise FileNotFoundError(
      f"network.path: no file {path}; run curl -L -o {fetched} {_SOURCE} and pass {fetched}"
    )
  try:
    return inception.params_of(weights.read(path, allow_pickle=True))
  except ValueError as error:
    raise ValueError(f"network.path: {path}: {error}") from None


def statistics(path: str | os.PathLike) -> Moments:
  """Reference statistics, `mu` `[2048]` and `sigma` `[2048, 2048]` in an .npz.

  ADM's reference batches hold them, and so do EDM's files; `write_statistics` makes some.

  Raises:
    FileNotFoundError, ValueError: no such file, or it holds something else.
  """
  mean, cov = frechet.load(path)
  if mean.shape != (inception.WIDTH,):
    raise ValueError(f"{path}: of {len(mean)} features, Inception's are {inception.WIDTH}")
  return mean, cov


def write_statistics(
  path: str | os.PathLike,
  params: inception.Params,
  data: dict[str, np.ndarray],
  *,
  limits: tuple[float, float] = (-1.0, 1.0),
  resize: str = "tensorflow",
) -> str:
  """Writes the statistics of images `x` `[N, H, W, 1 | 3]`, of a loader; returns their hash."""
  images = adm.pixels(data["x"], limits)
  moments = frechet.moments(inception.features(params, images, resize=resize))
  frechet.save(path, *moments)
  return _digest(moments)


def scores(
  draw: Callable[..., np.ndarray],
  params: Any,
  *,
  network: inception.Params,
  reference: Moments,
  images: dict[str, np.ndarray] | None = None,
  steps: tuple[int, ...] = (1, 2, 4, 8),
  samples: int = 50_000,
  limits: tuple[float, float] = (-1.0, 1.0),
  resize: str = "tensorflow",
  batch_size: int = 64,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """FID of `samples` samples of each number of `steps`.

  Args:
    draw: `sample.make_draw`'s.
    params: the weights to draw with.
    network: `network`'s.
    reference: `statistics`'s.
    images: reference images `x` `[N, H, W, 1 | 3]` within `limits`, of a loader, for precision,
      recall, density and coverage: of equally many of both, chosen by `metrics.subsets`.
    steps: numbers of steps of the sampler.
    samples: how many to draw for each; FID falls with their number, and 50,000 is usual.
    limits: the values of black and white. Samples are rounded to 256 levels; a single channel is
      repeated.
    resize: see `inception.features`.
    batch_size: of the Inception network; it changes no score.

  Returns:
    What the scores depend on, and a row of them for each number of steps; no figures.
  """
  of = lambda pixels: inception.features(network, pixels, resize=resize, batch_size=batch_size)
  values: dict[str, Any] = {
    "features": inception.name_of(network),
    "reference": f"sha256:{_digest(reference)}",
    "resize": resize,
    "samples": samples,
  }
  real = None
  if images is not None:
    chosen = subsets.choose(images["x"], samples)
    pieces = (images["x"][chosen[n : n + 1000]] for n in range(0, len(chosen), 1000))
    real = np.concatenate([of(adm.pixels(piece, limits)) for piece in pieces])
  for k in steps:
    found = np.concatenate([of(p) for p in adm.drawn(draw, params, samples, k, limits)])
    row = dict(fid=frechet.frechet_distance(*frechet.moments(found), *reference))
    if real is not None:
      row |= precision_recall.scores(real, found[subsets.choose(found, len(real))])
    values[f"{k} steps"] = row
  return values, {}


def check_scores(
  *,
  network: inception.Params,
  reference: Moments,
  images: dict[str, np.ndarray] | None = None,
  steps: tuple[int, ...] = (1, 2, 4, 8),
  samples: int = 50_000,
  limits: tuple[float, float] = (-1.0, 1.0),
  resize: str = "tensorflow",
  batch_size: int = 64,
  shape: tuple[int, ...] | None = None,
) -> None:
  """Refuses arguments of `scores` that it cannot take, before anything is trained.

  `shape` is that of a sample, if it is known.

  Raises:
    ValueError: naming the argument.
  """
  del steps, limits, batch_size  # which every evaluator's are checked for
  if shape is not None:
    adm.check(shape)
  inception.check(network, "network")
  frechet.checked(*reference, ("reference: mu", "reference: sigma"), size=inception.WIDTH)
  inception.check_resize(resize)
  least = 2 if images is None else precision_recall.LEAST_POINTS
  inputs.whole(samples, "samples", low=least)
  if images is not None:
    x = references.examples(images, "images", 4, least=least)
    if x.shape[-1] not in (1, 3):
      raise ValueError(f"images.x: images of {x.shape[-1]} channels; give 1 or 3.")


def _digest(moments: Moments) -> str:
  return features_lib.digest(dict(zip(("mu", "sigma"), moments, strict=True)), 12)
