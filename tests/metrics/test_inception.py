"""The Inception network of FID, with random weights of the right shapes: there are no others."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dfim.metrics import features, inception
from tests.data.helpers import refused
from tests.models import time_path

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)


def state_dict(seed=0):
  """As pytorch-fid's, in torch's layout, of a variance that ReLUs keep."""
  rng = np.random.default_rng(seed)
  arrays = {}
  for name, (height, width, before, channels) in inception.kernels().items():
    kernel = rng.standard_normal((channels, before, height, width), np.float32)
    arrays[f"{name}.conv.weight"] = kernel * np.sqrt(2 / (height * width * before))
    for part in ("weight", "running_var"):
      arrays[f"{name}.bn.{part}"] = rng.uniform(0.8, 1.2, channels).astype(np.float32)
    for part in ("bias", "running_mean"):
      arrays[f"{name}.bn.{part}"] = rng.normal(0, 0.1, channels).astype(np.float32)
  return arrays


@pytest.fixture(scope="module")
def arrays():
  return state_dict()


@pytest.fixture(scope="module")
def params(arrays):
  return inception.params_of(arrays)


@pytest.mark.parametrize("resize", ["tensorflow", "pytorch"])
def test_features_are_the_same_whatever_the_platforms_precision(resize, params, monkeypatch):
  marks = time_path.PARAMS, time_path.X
  read = lambda network, params, x, _: time_path.products(network, marks, params, x)
  monkeypatch.setattr(features, "in_batches", read)
  found = inception.features(params, IMAGES, resize=resize)
  assert len(found) == 94 + 2 and all(map(time_path.exact, found))


def test_the_convolutions_are_those_of_inception_v3():
  kernels = inception.kernels()
  assert len(kernels) == 94
  assert sum(np.prod(shape) for shape in kernels.values()) == 21_751_136
  assert kernels["Conv2d_1a_3x3"] == (3, 3, 3, 32)
  assert kernels["Mixed_5c.branch_pool"] == (1, 1, 256, 64)
  assert kernels["Mixed_6d.branch7x7_2"] == (1, 7, 160, 160)
  assert kernels["Mixed_7c.branch3x3dbl_3b"] == (3, 1, 384, 384)


def test_features_and_the_name_are_of_the_weights_and_not_of_the_batch(params, arrays):
  whole = inception.features(params, IMAGES, batch_size=2)
  assert whole.shape == (3, 2048) and whole.dtype == np.float32 and np.isfinite(whole).all()
  assert whole.std(0).mean() > 1e-3, "features tell images apart"
  alone = inception.features(params, IMAGES[1:2], batch_size=2)
  np.testing.assert_allclose(alone, whole[1:2], atol=1e-4)
  name = inception.name_of(params)
  assert name.startswith("inception-2015 sha256:") and len(name.split(":")[1]) == 12
  assert name == inception.name_of(inception.params_of(arrays | dict(fc=np.zeros(3))))
  first = "Conv2d_1a_3x3.bn.bias"
  assert name != inception.name_of(inception.params_of(arrays | {first: arrays[first] + 1e-3}))


def test_batch_norm_goes_into_kernel_and_bias(arrays, params):
  name = "Mixed_5b.branch5x5_2"
  x = np.random.default_rng(1).normal(size=(1, 6, 5, 48))
  weight = arrays[f"{name}.conv.weight"].astype(np.float64)
  plain = convolve(x, weight)
  part = {p: arrays[f"{name}.bn.{p}"] for p in ("weight", "bias", "running_mean", "running_var")}
  normed = (plain - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3)
  expected = normed * part["weight"] + part["bias"]
  kernel, bias = (np.asarray(params[f"{name}.{p}"]) for p in ("kernel", "bias"))
  folded = convolve(x, kernel.transpose(3, 2, 0, 1)) + bias
  np.testing.assert_allclose(folded, expected, atol=1e-4)


def convolve(x, weight, stride=1, valid=False):
  """`[B, H, W, C]` with torch's `[O, C, h, w]`, pixel by pixel."""
  out, _, height, width = weight.shape
  if not valid:
    x = np.pad(x, [(0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)])
  rows = range(0, x.shape[1] - height + 1, stride)
  columns = range(0, x.shape[2] - width + 1, stride)
  patch = lambda i, j: x[:, i : i + height, j : j + width].transpose(0, 3, 1, 2)
  at = lambda i, j: np.tensordot(patch(i, j), weight, ([1, 2, 3], [1, 2, 3]))
  found = np.stack([np.stack([at(i, j) for j in columns], 1) for i in rows], 1)
  assert found.shape[-1] == out
  return found


class Units:
  """Convolutions of few channels with weights drawn by name, done by hand; it keeps the weights."""

  def __init__(self, by_hand):
    self.by_hand, self.called = by_hand, []

  def __call__(self, name, x, channels, kernel=(1, 1), stride=1, padding="SAME"):
    self.called.append(name)
    channels = 2 + channels % 3
    rng = np.random.default_rng(list(name.encode()))
    weight = rng.normal(size=(channels, x.shape[-1], *kernel)).astype(np.float32)
    if self.by_hand:
      return np.maximum(convolve(x, weight, stride, padding == "VALID"), 0)
    kernel = jnp.asarray(weight.transpose(2, 3, 1, 0))
    found = inception._convolve(x, kernel, stride=stride, padding=padding)
    return jnp.maximum(found, 0)


def pool_by_hand(x, how, stride=1, pad=True):
  x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=np.nan) if pad else x
  rows, columns = (range(0, n - 2, stride) for n in x.shape[1:3])
  return np.stack(
    [np.stack([how(x[:, i : i + 3, j : j + 3], axis=(1, 2)) for j in columns], 1) for i in rows], 1
  )


X = np.random.default_rng(2).normal(size=(2, 9, 7, 3)).astype(np.float32)


def block_by_hand(name, u):
  """The branches in the order in which their channels come, after pytorch-fid's description."""
  mean = lambda: pool_by_hand(X, np.nanmean)
  halved = lambda: pool_by_hand(X, np.max, 2, pad=False)
  double = lambda y: u("branch3x3dbl_2", u("branch3x3dbl_1", y, 64), 96, (3, 3))
  last = dict(kernel=(3, 3), stride=2, padding="VALID")
  if name == "a":
    five = u("branch5x5_2", u("branch5x5_1", X, 48), 64, (5, 5))
    three = u("branch3x3dbl_3", double(X), 96, (3, 3))
    return [u("branch1x1", X, 64), five, three, u("branch_pool", mean(), 32)]
  if name == "b":
    return [u("branch3x3", X, 384, **last), u("branch3x3dbl_3", double(X), 96, **last), halved()]
  if name == "c":
    seven = u("branch7x7_1", X, 128)
    for n, width, kernel in ((2, 128, (1, 7)), (3, 192, (7, 1))):
      seven = u(f"branch7x7_{n}", seven, width, kernel)
    far = u("branch7x7dbl_1", X, 128)
    for n, width in ((2, 128), (3, 128), (4, 128), (5, 192)):
      far = u(f"branch7x7dbl_{n}", far, width, (1, 7) if n % 2 else (7, 1))
    return [u("branch1x1", X, 192), seven, far, u("branch_pool", mean(), 192)]
  if name == "d":
    seven = u("branch7x7x3_2", u("branch7x7x3_1", X, 192), 192, (1, 7))
    seven = u("branch7x7x3_4", u("branch7x7x3_3", seven, 192, (7, 1)), 192, **last)
    return [u("branch3x3_2", u("branch3x3_1", X, 192), 320, **last), seven, halved()]
  three = u("branch3x3_1", X, 384)
  double = u("branch3x3dbl_2", u("branch3x3dbl_1", X, 448), 384, (3, 3))
  ends = [
    u(f"{stem}{end}", y, 384, kernel)
    for stem, y in (("branch3x3_2", three), ("branch3x3dbl_3", double))
    for end, kernel in (("a", (1, 3)), ("b", (3, 1)))
  ]
  pool = mean() if name == "e1" else pool_by_hand(X, np.nanmax)
  return [u("branch1x1", X, 320), *ends, u("branch_pool", pool, 192)]


@pytest.mark.parametrize(
  "name, block",
  [
    ("a", lambda u, x: inception._block_a(u, x, 32)),
    ("b", inception._block_b),
    ("c", lambda u, x: inception._block_c(u, x, 128)),
    ("d", inception._block_d),
    ("e1", lambda u, x: inception._block_e(u, x, inception._average)),
    ("e2", lambda u, x: inception._block_e(u, x, inception._maximum)),
  ],
)
def test_a_block_equals_small_convolutions_by_hand(name, block):
  ours, by_hand = Units(False), Units(True)
  expected = np.concatenate(block_by_hand(name, by_hand), -1)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(block(ours, jnp.asarray(X)), expected, atol=1e-5 * scale)
  assert sorted(ours.called) == sorted(by_hand.called)


def test_the_last_block_alone_takes_the_maximum(monkeypatch):
  pools, block = [], inception._block_e
  spy = lambda unit, x, pool: pools.append(pool) or block(unit, x, pool)
  monkeypatch.setattr(inception, "_block_e", spy)
  inception.kernels.__wrapped__()  # traces the whole network
  assert pools == [inception._average, inception._maximum]


@pytest.mark.parametrize("resize, centre", [("tensorflow", 128), ("pytorch", 127.5)])
def test_pixels_come_to_the_range_that_each_program_uses(monkeypatch, resize, centre):
  seen = []
  monkeypatch.setattr(inception, "pool3", lambda params, x: seen.append(np.asarray(x)) or x)
  inception._FROM_PIXELS[resize](None, jnp.asarray(IMAGES))
  (x,) = seen
  assert x.shape == (3, 299, 299, 3)
  half = resize == "pytorch"
  axes = [
    ((np.arange(299) + half / 2) * n / 299 - half / 2).clip(0, n - 1) for n in IMAGES.shape[1:3]
  ]
  grid = np.meshgrid(*axes, indexing="ij")
  for channel in range(3):
    by_hand = ndimage.map_coordinates(IMAGES[0, ..., channel].astype(float), grid, order=1)
    np.testing.assert_allclose(x[0, ..., channel], (by_hand - centre) / centre, atol=1e-4)


NAME = "Mixed_5b.branch1x1.conv.weight"
WEIGHT = np.zeros((64, 192, 1, 1))


@pytest.mark.parametrize(
  "name, value, place",
  [
    (NAME, None, f"no parameter {NAME}"),
    (NAME, WEIGHT + np.nan, f"{NAME}: nan at output 0, input 0, row 0, column 0"),
    ("Conv2d_1a_3x3.bn.running_var", -np.ones(32), "running_var: -1.0 at channel 0"),
  ],
)
def test_names_the_first_parameter_that_does_not_fit(arrays, name, value, place):
  changed = {k: v for k, v in arrays.items() if k != name and not k.startswith("Mixed_7")}
  with refused(place):
    inception.params_of(changed if value is None else changed | {name: value})


def test_weights_that_are_not_all_there_are_refused(params):
  inception.check(params, "network")
  name = "Mixed_7c.branch_pool.bias"
  without = {k: a for k, a in params.items() if k != name}
  for changed in (without, without | {name: np.zeros(3)}):
    with refused(f"network: has no {name}"):
      inception.check(changed, "network")
