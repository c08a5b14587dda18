"""Frechet distance between two clouds of features, taken for Gaussians.

Source: M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500. It is FID
only where the features are those of the Inception network; name yours beside the number.
"""

import os
import pathlib

import numpy as np

from dfim import archives
from dfim import files


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean `[D]` and covariance `[D, D]` of `[N, D]`, in float64, with N - 1 below.

  Raises:
    ValueError: not a matrix, fewer than two rows, or numbers that are not finite.
  """
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or len(features) < 2:
    raise ValueError(f"features: moments need [N >= 2, D], not {list(features.shape)}")
  if not np.isfinite(features).all():
    raise ValueError("features: some are not finite; look at the samples")
  mean = features.mean(0)
  centred = features - mean
  return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(
  mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
  """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)), never negative.

  The last trace is the sum of the singular values of sqrt(C1) sqrt(C2), that is of the roots of
  the eigenvalues of sqrt(C1) C2 sqrt(C1). No root of a product's rounding error is taken, so that
  covariances without full rank (fewer samples than features) stay exact to 1e-7 or so.
  """
  overlap = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
  distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * overlap
  return max(float(distance), 0.0)


def save(path: str | os.PathLike, mean: np.ndarray, cov: np.ndarray) -> None:
  """Writes moments as the field's programs do: an .npz with `mu` and `sigma`."""
  files.replace(path, lambda file: np.savez(file, mu=mean, sigma=cov))


def load(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
  """The moments of an .npz with `mu` `[D]` and `sigma` `[D, D]`, in float64.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is damaged, or holds something else.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f"no reference statistics {path}; docs/scores.md says how to get some")
  try:
    file = archives.read_npz(path, "mu", "sigma")
    mean, cov = (np.asarray(file[name], np.float64) for name in ("mu", "sigma"))
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path}: no .npz with numbers mu and sigma ({error})") from None
  if mean.ndim != 1 or cov.shape != 2 * mean.shape or not np.isfinite(cov).all():
    raise ValueError(
      f"{path}: mu {list(mean.shape)} and sigma {list(cov.shape)} are no finite [D] and [D, D]"
    )
  return mean, cov


def _root(cov: np.ndarray) -> np.ndarray:
  """The symmetric square root; eigenvalues that rounding made negative count as zero."""
  values, vectors = np.linalg.eigh(cov)
  return vectors * np.sqrt(values.clip(0)) @ vectors.T
