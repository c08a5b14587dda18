import numpy as np
import pytest
import scipy.linalg

from dfim.metrics import frechet
from tests.data.helpers import refused


def cloud(seed, n, d):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def distance(x, y):
  return frechet.frechet_distance(*frechet.moments(x), *frechet.moments(y))


def test_moments_are_numpys_in_float64_and_come_back_from_a_file_that_has_them(tmp_path):
  x = (cloud(0, 50, 4) + 1e4).astype(np.float32)
  mean, cov = frechet.moments(x)
  assert mean.dtype == cov.dtype == np.float64
  np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-12)
  np.testing.assert_allclose(cov, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)
  path, moments = tmp_path / "a.npz", frechet.moments(cloud(0, 50, 4))
  frechet.save(path, *moments)
  assert sorted(np.load(path).files) == ["mu", "sigma"]
  for a, b in zip(frechet.load(path), moments, strict=True):
    np.testing.assert_array_equal(a, b)
  path = tmp_path / "b.npz"
  with refused(path, "docs/scores.md", kind=FileNotFoundError):
    frechet.load(path)
  np.savez(path, mu=np.zeros(3), cov=np.eye(3))
  with refused(path, "sigma"):
    frechet.load(path)


@pytest.mark.parametrize("x", [np.zeros((1, 3)), np.zeros(5), np.full((4, 2), np.nan)])
def test_moments_refuse_other_arrays(x):
  with refused("features"):
    frechet.moments(x)


@pytest.mark.parametrize(
  "change, place",
  [
    (dict(cov1=np.eye(3)), "cov1 of shape (3, 3)"),
    (dict(mean1=np.array([0, np.nan])), "mean1: nan at feature 1"),
  ],
)
def test_moments_that_do_not_fit_are_refused(change, place):
  same = dict(mean1=np.zeros(2), cov1=np.eye(2), mean2=np.zeros(2), cov2=np.eye(2))
  assert frechet.frechet_distance(**same) < 1e-12
  with refused(place):
    frechet.frechet_distance(**same | change)


def test_agrees_with_the_closed_form_and_with_scipys_square_root():
  m1, c1 = frechet.moments(cloud(1, 300, 16))
  m2, c2 = frechet.moments(cloud(2, 400, 16))
  overlap = np.trace(scipy.linalg.sqrtm(c1 @ c2).real)
  expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2) - 2 * overlap
  np.testing.assert_allclose(frechet.frechet_distance(m1, c1, m2, c2), expected, rtol=1e-9)
  m1, m2, s1, s2 = np.random.default_rng(0).uniform(0.1, 3, (4, 6))
  expected = np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2)
  found = frechet.frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_covariances_without_full_rank_are_right():
  """Fewer samples than features: the same numbers in a larger space, turned."""
  x, y = cloud(1, 10, 6), cloud(2, 9, 6)
  turn = np.linalg.qr(np.random.default_rng(3).normal(size=(64, 64)))[0][:6]
  np.testing.assert_allclose(distance(x @ turn, y @ turn), distance(x, y), rtol=1e-6)
  assert distance(x @ turn, x @ turn) < 1e-6


def changed(array, place, value):
  array = np.array(array)
  array[place] = value
  return array


MEAN, COV = np.arange(3.0), np.diag([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
  "wrong, place",
  [
    (dict(mu=changed(MEAN, 2, -np.inf)), "mu: -inf at feature 2"),
    (dict(sigma=changed(COV, (2, 1), np.nan)), "sigma: nan at row 2, column 1"),
    (dict(sigma=changed(COV, (1, 2), 0.1)), "sigma: 0.1 at row 1, column 2"),
    (dict(sigma=changed(COV, (0, 0), -1)), "sigma: an eigenvalue is negative"),
  ],
)
def test_load_refuses_wrong_moments(wrong, place, tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, **(dict(mu=MEAN, sigma=COV) | wrong))
  with refused(path, place):
    frechet.load(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_moments_without_full_rank_are_taken(dtype, tmp_path):
  mean, cov = (a.astype(dtype) for a in frechet.moments(cloud(0, 10, 40)))
  frechet.save(tmp_path / "a.npz", mean, cov)
  for found, saved in zip(frechet.load(tmp_path / "a.npz"), (mean, cov), strict=True):
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, saved)
