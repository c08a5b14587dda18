"""FID from files, with a small network in place of Inception where only the bookkeeping counts."""

import re

import numpy as np
import pytest

from dfim.evaluators import fid
from dfim.metrics import frechet, inception
from tests.data.helpers import refused
from tests.metrics import test_inception

RNG = np.random.default_rng(0)
DATA = dict(x=RNG.uniform(-1, 1, (40, 4, 4, 1)).astype(np.float32))


@pytest.fixture
def small(monkeypatch):
  calls = []

  def features(params, images, *, resize, batch_size=64):
    calls.append((resize, batch_size, images.dtype, images.shape))
    return images.reshape(len(images), 8, -1).mean(-1) * params["scale"]

  monkeypatch.setattr(inception, "features", features)
  return calls


def draw(params, count, steps, first=0):
  """Sample i is image i of the data, less a shift that falls with `steps`."""
  return DATA["x"][np.arange(first, first + count) % 40] - params / steps


NETWORK = dict(scale=np.ones(()))


def test_data_score_zero_and_shifted_samples_more(small, tmp_path):
  path = tmp_path / "stats.npz"
  digest = fid.write_statistics(path, NETWORK, DATA)
  how = dict(network=NETWORK, reference=frechet.load(path), samples=40, steps=(1, 4))
  values, figures = fid.scores(draw, 0.0, **how)
  assert values["1 steps"]["fid"] < 1e-6 and figures == {}
  off, _ = fid.scores(draw, 0.5, **how)
  assert off["1 steps"]["fid"] > 2 * off["4 steps"]["fid"] > 0.1
  assert values["reference"] == f"sha256:{digest}"
  assert re.fullmatch(r"inception-2015 sha256:[0-9a-f]{12}", values["features"])
  assert values["resize"] == "tensorflow" and values["samples"] == 40
  assert {dtype for _, _, dtype, _ in small} == {np.dtype(np.uint8)}
  assert {shape[1:] for *_, shape in small} == {(4, 4, 3)}


def test_reference_images_add_precision_and_coverage(small, tmp_path):
  fid.write_statistics(tmp_path / "a.npz", NETWORK, DATA)
  reference = frechet.load(tmp_path / "a.npz")
  how = dict(network=NETWORK, reference=reference, images=DATA, steps=(1,))
  for samples, least in ((20, 0.7), (40, 1.0), (60, 0.9)):  # of 40 reference images
    row = fid.scores(draw, 0.0, samples=samples, **how)[0]["1 steps"]
    assert min(row["precision"], row["recall"], row["coverage"]) >= least
  row = fid.scores(draw, 2.0, samples=40, **how)[0]["1 steps"]
  assert row["precision"] == row["coverage"] == 0.0


@pytest.mark.parametrize("samples", [15, 100])
def test_no_score_depends_on_the_order_of_the_images(small, samples):
  """Sorted by brightness, the reference and the samples, each fewer and more than the others."""
  sort = lambda x: x[np.argsort(x.mean((1, 2, 3)))]
  other = RNG.uniform(-1, 1, (samples, 4, 4, 1)).astype(np.float32)

  def found(images, x):
    moments = np.zeros(8), np.eye(8)
    how = dict(network=NETWORK, reference=moments, images=dict(x=images), steps=(1,))
    pieces = lambda params, count, steps, first=0: x[first : first + count]
    return fid.scores(pieces, None, samples=samples, **how)[0]["1 steps"]

  expected = found(DATA["x"], other)
  assert found(sort(DATA["x"]), sort(other)) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def network():
  return inception.params_of(test_inception.state_dict())


MOMENTS = np.zeros(inception.WIDTH), np.eye(inception.WIDTH)
FIVE = dict(x=DATA["x"][:5])


@pytest.mark.parametrize(
  "change, place",
  [
    (dict(network=NETWORK), "network: has no Conv2d_1a_3x3.kernel"),
    (dict(reference=(np.zeros(8), np.eye(8))), "reference: mu"),
    (dict(resize="bicubic"), "resize='bicubic'"),
    (dict(images=FIVE), "images.x of 5 images"),
    (dict(shape=(4, 4, 4)), "latents"),
  ],
)
def test_arguments_that_would_fail_after_training_are_refused(network, change, place):
  given = dict(network=network, reference=MOMENTS, samples=6, shape=(4, 4, 1))
  fid.check_scores(**given, steps=(1,))
  fid.check_scores(**given | dict(images=DATA))
  with refused(place):
    fid.check_scores(**given | change)


def test_resize_and_batch_size_reach_the_network(small):
  moments = np.zeros(8), np.eye(8)
  how = dict(resize="pytorch", batch_size=5, samples=6, steps=(1,))
  values, _ = fid.scores(draw, 0.0, network=NETWORK, reference=moments, **how)
  assert {call[:2] for call in small} == {("pytorch", 5)} and values["resize"] == "pytorch"


def test_statistics_are_of_inceptions_features_and_missing_weights_named(tmp_path):
  path = tmp_path / "a.npz"
  frechet.save(path, np.zeros(3), np.eye(3))
  with refused(path, "2048"):
    fid.statistics(path)
  frechet.save(path, np.zeros(2048), np.eye(2048, dtype=np.float32))
  mean, cov = fid.statistics(path)
  assert mean.shape == (2048,) and cov.dtype == np.float64
  path, fetched = tmp_path / "inception.npz", f"{tmp_path}/pt_inception-2015-12-05-6726825d.pth"
  with refused("network.path", path, f"curl -L -o {fetched} https://", kind=FileNotFoundError):
    fid.network(path)
