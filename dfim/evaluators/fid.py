"""FID: the Frechet distance in the features of the Inception network of 2015, from files.

Results name the weights and statistics by the sha256 of their numbers. Nothing is downloaded.
"""

import os
from typing import Any

import numpy as np

from dfim.evaluators import references
from dfim.evaluators.references import Data, Draw, Found
from dfim.interop import weights
from dfim.io import inputs
from dfim.metrics import adm, features, frechet, inception, precision_recall, subsets

Moments = tuple[np.ndarray, np.ndarray]
_FILE = "pt_inception-2015-12-05-6726825d.pth"
_SOURCE = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{_FILE}"


def network(path: str | os.PathLike) -> inception.Params:
  """The weights in pytorch-fid's file, or in an .npz or .safetensors file of the same arrays."""
  path = inputs.path(path, "network.path")
  if not path.is_file():
    fetched = path.with_name(_FILE)
    fix = f"run curl -L -o {fetched} {_SOURCE} and pass {fetched}"
    raise FileNotFoundError(f"network.path: no file {path}; {fix}")
  try:
    return inception.params_of(weights.read(path, allow_pickle=True))
  except ValueError as error:
    raise ValueError(f"network.path: {path}: {error}") from None


def statistics(path: str | os.PathLike) -> Moments:
  """Reference statistics `mu [2048]` and `sigma [2048, 2048]` in an .npz, as ADM's or EDM's."""
  mean, cov = frechet.load(path)
  if mean.shape != (inception.WIDTH,):
    raise ValueError(f"{path}: of {len(mean)} features, Inception's are {inception.WIDTH}")
  return mean, cov


def write_statistics(
  path: str | os.PathLike,
  params: inception.Params,
  data: Data,
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
  draw: Draw,
  params: Any,
  *,
  network: inception.Params,
  reference: Moments,
  images: Data | None = None,
  steps: tuple[int, ...] = (1, 2, 4, 8),
  samples: int = 50_000,
  limits: tuple[float, float] = (-1.0, 1.0),
  resize: str = "tensorflow",
  batch_size: int = 64,
) -> Found:
  """FID of `samples` samples of each number of `steps`, in `inception.features`.

  `network` and `reference` are those of the functions of these names. Reference `images` `x [N, H,
  W, 1 | 3]` within `limits`, the values of black and white, add precision, recall, density and
  coverage, of equally many of both.
  """
  of = lambda pixels: inception.features(network, pixels, resize=resize, batch_size=batch_size)
  values: dict[str, Any] = dict(features=inception.name_of(network))
  values |= dict(reference=f"sha256:{_digest(reference)}", resize=resize, samples=samples)
  if images is not None:
    chosen = subsets.choose(images["x"], samples)
    pieces = (images["x"][chosen[n : n + 1000]] for n in range(0, len(chosen), 1000))
    real = np.concatenate([of(adm.pixels(piece, limits)) for piece in pieces])
  for k in steps:
    found = np.concatenate([of(p) for p in adm.drawn(draw, params, samples, k, limits)])
    row = dict(fid=frechet.frechet_distance(*frechet.moments(found), *reference))
    if images is not None:
      row |= precision_recall.scores(real, found[subsets.choose(found, len(real))])
    values[f"{k} steps"] = row
  return values, {}


def check_scores(
  *,
  network: inception.Params,
  reference: Moments,
  images: Data | None = None,
  samples: int = 50_000,
  resize: str = "tensorflow",
  shape: tuple[int, ...] | None = None,
  **_: Any,
) -> None:
  """Raises ValueError for arguments that `scores` cannot take; `shape` is a sample's."""
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
  return features.digest(dict(zip(("mu", "sigma"), moments, strict=True)), 12)
