"""Frechet distance between two clouds of features, taken for Gaussians.

Source: M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500. It is FID
only where the features are those of the Inception network; name yours beside the number.
"""

import numpy as np


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


def _root(cov: np.ndarray) -> np.ndarray:
  """The symmetric square root; eigenvalues that rounding made negative count as zero."""
  values, vectors = np.linalg.eigh(cov)
  return vectors * np.sqrt(values.clip(0)) @ vectors.T
