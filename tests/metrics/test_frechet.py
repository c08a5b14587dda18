import numpy as np
import pytest
import scipy.linalg

from dfim.metrics import frechet


def cloud(seed, n, d):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def distance(x, y):
  return frechet.frechet_distance(*frechet.moments(x), *frechet.moments(y))


def test_moments_are_numpys_in_float64():
  x = (cloud(0, 50, 4) + 1e4).astype(np.float32)
  mean, cov = frechet.moments(x)
  assert mean.dtype == cov.dtype == np.float64
  np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-12)
  np.testing.assert_allclose(cov, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)


def test_moments_do_not_depend_on_the_order():
  x = cloud(0, 500, 8)
  for a, b in zip(frechet.moments(x), frechet.moments(x[::-1]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("x", [np.zeros((1, 3)), np.zeros(5), np.full((4, 2), np.nan)])
def test_moments_refuse_what_has_none(x):
  with pytest.raises(ValueError, match="features"):
    frechet.moments(x)


def test_diagonal_gaussians_in_closed_form():
  m1, m2, s1, s2 = np.random.default_rng(0).uniform(0.1, 3, (4, 6))
  expected = np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2)
  found = frechet.frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_agrees_with_scipys_square_root():
  m1, c1 = frechet.moments(cloud(1, 300, 16))
  m2, c2 = frechet.moments(cloud(2, 400, 16))
  overlap = np.trace(scipy.linalg.sqrtm(c1 @ c2).real)
  expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2) - 2 * overlap
  np.testing.assert_allclose(frechet.frechet_distance(m1, c1, m2, c2), expected, rtol=1e-9)


def test_is_zero_on_itself_and_symmetric():
  x, y = cloud(1, 100, 16), cloud(2, 100, 16)
  assert distance(x, x) < 1e-9
  np.testing.assert_allclose(distance(x, y), distance(y, x), rtol=1e-12)


def test_covariances_without_full_rank_are_right():
  """Fewer samples than features: the same numbers in a larger space, turned."""
  x, y = cloud(1, 10, 6), cloud(2, 9, 6)
  turn = np.linalg.qr(np.random.default_rng(3).normal(size=(64, 64)))[0][:6]
  np.testing.assert_allclose(distance(x @ turn, y @ turn), distance(x, y), rtol=1e-6)
  assert distance(x @ turn, x @ turn) < 1e-6


def test_orthogonal_planes_share_nothing():
  zero = np.zeros(2)
  found = frechet.frechet_distance(zero, np.diag([1.0, 0.0]), zero, np.diag([0.0, 4.0]))
  np.testing.assert_allclose(found, 5.0)


def test_saved_moments_come_back(tmp_path):
  path, moments = tmp_path / "a.npz", frechet.moments(cloud(0, 50, 4))
  frechet.save(path, *moments)
  assert sorted(np.load(path).files) == ["mu", "sigma"]
  for a, b in zip(frechet.load(path), moments, strict=True):
    np.testing.assert_array_equal(a, b)


def test_load_refuses_what_are_no_moments(tmp_path):
  path = tmp_path / "a.npz"
  with pytest.raises(FileNotFoundError, match="no reference statistics .*a.npz; docs/scores.md"):
    frechet.load(path)
  path.write_bytes(b"junk")
  with pytest.raises(ValueError, match="a.npz: no .npz with numbers mu and sigma"):
    frechet.load(path)
  for arrays in (dict(mu=np.zeros(3)), dict(mu=np.array(["a"]), sigma=np.zeros((1, 1)))):
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="no .npz with numbers mu and sigma"):
      frechet.load(path)
  for sigma in (np.zeros((2, 3)), np.full((3, 3), np.nan)):
    np.savez(path, mu=np.zeros(3), sigma=sigma)
    with pytest.raises(ValueError, match=r"mu \[3\] and sigma"):
      frechet.load(path)
