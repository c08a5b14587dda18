"""A cache of latents, written here."""

import itertools

import numpy as np
import pytest

from dfim.data.images import latents
from tests.data.helpers import assert_equal, refused

N = 24


@pytest.fixture
def arrays():
  """Raw latents `[24, 4, 4, 4]` with the moments that the paper gives."""
  rng = np.random.default_rng(0)
  mean = latents.CHANNEL_MEAN + latents.CHANNEL_STD * rng.standard_normal((N, 4, 4, 4))
  std = rng.uniform(0.05, 0.15, mean.shape)
  return dict(mean=mean.astype(np.float16), std=std.astype(np.float16), label=np.arange(N) % 7)


def write(path, arrays):
  for name, array in arrays.items():
    np.save(path / f"{name}.npy", array)
  return path


@pytest.fixture
def path(tmp_path, arrays):
  return write(tmp_path, arrays)


def test_batches_are_posterior_samples(path, arrays):
  batches, noise = list(itertools.islice(latents.latents(N, 0, path=path), 100)), []
  for batch in batches:
    raw = latents.to_latents(batch["x"])
    away = raw[:, None] - arrays["mean"][None].astype(np.float32)
    rows = np.square(away).sum((2, 3, 4)).argmin(1)  # which latent each is a sample of
    np.testing.assert_array_equal(np.sort(rows), np.arange(N))
    np.testing.assert_array_equal(batch["cond"]["label"], arrays["label"][rows])
    noise.append((raw - arrays["mean"][rows].astype(float)) / arrays["std"][rows])
  assert batch["x"].dtype == np.float32 and batch["cond"]["label"].dtype == np.int32
  noise = np.stack(noise)
  assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01  # 1.5e5 numbers
  assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1  # drawn anew


def test_a_network_sees_a_mean_of_zero_and_a_std_of_half(path, arrays):
  x = latents.load(path)["x"]
  assert abs(x.mean()) < 0.05 and abs(x.std() - 0.5) < 0.03
  np.testing.assert_allclose(latents.to_latents(x), arrays["mean"], atol=1e-5)


def test_any_start_and_any_process_see_the_same_samples(path):
  third = next(itertools.islice(latents.latents(12, 3, path=path), 2, 3))
  assert_equal(third, next(latents.latents(12, 3, 2, path=path)))
  parts = [next(latents.latents(12, 3, 2, path=path, process=(i, 3))) for i in range(3)]
  np.testing.assert_array_equal(third["x"], np.concatenate([p["x"] for p in parts]))
  assert np.any(third["x"] != next(latents.latents(12, 4, 2, path=path))["x"])


def test_another_autoencoder_brings_its_own_moments(tmp_path):
  ones = np.ones((N, 4, 4, 3), np.float32)
  write(tmp_path, dict(mean=5 * ones, std=-0.0 * ones))  # no deviation, by any sign
  moments = dict(channel_mean=(5.0, 3.0, 5.0), channel_std=(1.0, 2.0, 1.0))
  x = next(latents.latents(4, 0, path=tmp_path, **moments))["x"]
  np.testing.assert_allclose(x[0, 0, 0], [0, 0.5, 0])
  np.testing.assert_allclose(latents.to_latents(x, **moments), 5)


@pytest.mark.parametrize(
  "wrong, place",
  [
    (dict(std=np.ones((N, 4, 4, 3), np.float16)), "[24, 4, 4, 3]"),
    (dict(mean=np.ones((N, 4, 4, 4), np.uint8)), "uint8"),
    (dict(label=np.arange(7)), "label.npy of shape (7,)"),
    (dict(label=np.arange(N) + 2**31 - 5), "label.npy: 2147483648 at example 5"),
  ],
)
def test_arrays_that_do_not_belong_together_are_refused(path, wrong, place):
  write(path, wrong)
  with refused("data.path", path, place):
    latents.latents(4, 0, path=path)


@pytest.mark.parametrize(
  "wrong, place",
  [
    (dict(channel_std=(1.0, 0.0, 1.0, 1.0)), "data.channel_std: 0.0 at channel 1"),
    (dict(channel_mean=(1.0, np.inf, 1.0, 1.0)), "data.channel_mean: inf at channel 1"),
    (dict(channel_std=(1.0, 1.0, 1e-40, 1.0)), "data.channel_std: "),  # it overflows
  ],
)
def test_moments_that_divide_or_shift_wrongly_are_refused(wrong, place, path):
  for call in (
    lambda: next(latents.latents(4, 0, path=path, **wrong)),
    lambda: latents.load(path, **wrong),
  ):
    with refused(place):
      call()


@pytest.mark.parametrize("name, value", [("mean", -np.inf), ("std", np.nan), ("std", -0.5)])
def test_a_wrong_number_is_refused_with_its_example_when_it_comes(name, value, path, arrays):
  arrays[name][17, 2, 0, 3] = value
  write(path, arrays)
  batches = latents.latents(8, 0, path=path)
  place = path / f"{name}.npy", value, "at example 17, row 2, column 0, channel 3"
  with refused(*place):
    list(itertools.islice(batches, 3))  # an epoch
  if name == "mean":
    with refused(*place):
      latents.load(path)


def test_examples_are_the_stored_rows(path, arrays):
  batches = latents.latents(8, 0, path=path)
  found = batches.examples(np.array([3, 23, 3]))
  assert batches.size == N and batches.labels.tolist() == list(range(7))
  assert found["mean"].dtype == np.float16
  assert_equal(found, {name: array[[3, 23, 3]] for name, array in arrays.items()})
  (path / "label.npy").unlink()
  unlabelled = latents.latents(8, 0, path=path)
  assert unlabelled.labels is None and set(unlabelled.examples([0])) == {"mean", "std"}
  assert set(next(unlabelled)) == set(latents.load(path)) == {"x"}
