"""Frechet distance between clouds of features, taken for Gaussians (TTUR, arXiv 1706.08500)."""

import os

import numpy as np

from dfim.io import atomic, inputs, npz
from dfim.metrics import points

_PRECISION = 1e-3  # of covariances that were saved in half precision


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean `[D]` and covariance `[D, D]` of `[N, D]`, in float64, with N - 1 below."""
  features = inputs.examples(features, "features", 2, least=2, largest=points.LARGEST)
  mean = features.mean(0)
  centred = features - mean
  return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(
  mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
  """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)), never negative, of `[D]` and `[D, D]`."""
  mean1, cov1 = checked(mean1, cov1, ("mean1", "cov1"))
  mean2, cov2 = checked(mean2, cov2, ("mean2", "cov2"), size=len(mean1))
  # tr sqrt(C1 C2), exact without full rank
  overlap = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
  distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * overlap
  return max(float(distance), 0.0)


def checked(
  mean: np.ndarray, cov: np.ndarray, fields: tuple[str, str], size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Moments `[D]` and `[D, D]` in float64, D = `size` if given; `fields` names them in errors."""
  mean = inputs.numbers(mean, fields[0], (size,), axes=("feature",))
  shape = (len(mean), len(mean))
  return mean, inputs.numbers(cov, fields[1], shape, axes=("row", "column"))


def save(path: str | os.PathLike, mean: np.ndarray, cov: np.ndarray) -> None:
  """Writes an .npz with `mu` and `sigma`, as the field's programs do."""
  atomic.replace(path, lambda file: np.savez(file, mu=mean, sigma=cov))


def load(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
  """The moments of an .npz with `mu` `[D]` and `sigma` `[D, D]`, in float64."""
  path = inputs.path(path, "reference statistics")
  if not path.is_file():
    raise FileNotFoundError(f"no reference statistics {path}; docs/scores.md says how to get some")
  try:
    file = npz.read_npz(path, "mu", "sigma")
    mean, cov = (file[name] for name in ("mu", "sigma"))
  except (ValueError, KeyError) as error:
    raise ValueError(f"{path}: no .npz with numbers mu and sigma ({error})") from None
  mean = inputs.floats(mean, f"{path}: mu", (None,), axes=("feature",))
  cov = inputs.floats(cov, f"{path}: sigma", 2 * mean.shape, axes=("row", "column"))
  _check_covariance(cov, f"{path}: sigma")
  return mean, cov


def _check_covariance(cov: np.ndarray, field: str) -> None:
  askew = np.abs(cov - cov.T) > _PRECISION * np.abs(cov).max(initial=0)
  inputs.refuse_where(askew, cov, field, ("row", "column"), "make it symmetric")
  tolerance = _PRECISION * np.linalg.norm(cov) + np.finfo(float).tiny
  try:
    np.linalg.cholesky(cov + tolerance * np.eye(len(cov)))
  except np.linalg.LinAlgError:
    raise ValueError(f"{field}: an eigenvalue is negative; compute the covariance anew.") from None


def _root(cov: np.ndarray) -> np.ndarray:
  """The symmetric square root; eigenvalues that rounding made negative count as zero."""
  values, vectors = np.linalg.eigh(cov)
  return vectors * np.sqrt(values.clip(0)) @ vectors.T
