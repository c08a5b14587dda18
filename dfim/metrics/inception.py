"""The features of FID: Inception-v3 as the TensorFlow graph of 2015-12-05 has it, 2048 of pool 3.

Weights are of pytorch-fid, which ports it: averages in mixed blocks do not count the padding, and
the last block takes a maximum (docs/scores.md). Sources: arXiv 1512.00567, 1706.08500.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.io import inputs
from dfim.metrics import features as features_lib

Array = jax.Array
Params = dict[str, Array]
Unit = Callable[..., Array]  # (name, x, channels, kernel, stride, padding) -> conv, norm, ReLU of x

WIDTH = 2048  # features
SIDE = 299  # pixels, to which images are resized
_EPSILON = 1e-3  # of the batch norms


def features(
  params: Params, images: np.ndarray, *, resize: str = "tensorflow", batch_size: int = 64
) -> np.ndarray:
  """uint8 images `[N, H, W, 3]` to float32 `[N, 2048]`, `batch_size` at a time.

  They become 299 x 299 in [-1, 1], bilinear and without antialiasing: with "tensorflow", as ADM's
  suite, EDM and IMM, pixel i looks at H i / 299, and x / 128 - 1; with "pytorch", as pytorch-fid,
  at H (i + 1/2) / 299 - 1/2, and x / 127.5 - 1.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
    found = f"{images.dtype} {list(images.shape)}"
    raise ValueError(f"inception: needs uint8 images [N, H, W, 3], not {found}")
  check_resize(resize)
  return features_lib.in_batches(_FROM_PIXELS[resize], params, images, batch_size)


def check(params: Any, field: str) -> None:
  """Raises ValueError unless these are all of the network's weights, as from `params_of`."""
  for name, shape in kernels().items():
    for part, wanted in {f"{name}.kernel": shape, f"{name}.bias": shape[-1:]}.items():
      if part not in params or np.shape(params[part]) != wanted:
        raise ValueError(f"{field}: has no {part} {list(wanted)}; see evaluators.fid.network.")


def check_resize(resize: str) -> None:
  """Raises ValueError where `features` knows no such way."""
  if resize not in tuple(_FROM_PIXELS):
    raise FieldError("resize", resize, f"give one of {', '.join(_FROM_PIXELS)}")


def pool3(params: Params, x: Array) -> Array:
  """The network alone: `[B, 299, 299, 3]` in [-1, 1] to `[B, 2048]`."""

  def unit(name: str, x: Array, channels: int, kernel: Any = None, **how: Any) -> Array:
    y = _convolve(x, params[f"{name}.kernel"], **how)
    return jax.nn.relu(y + params[f"{name}.bias"][None, None, None])

  return _network(unit, x)


def params_of(arrays: Mapping[str, np.ndarray]) -> Params:
  """The weights of pytorch-fid's state dict, batch norms merged into convolutions in float64."""
  params = {}
  for name, (height, width, before, channels) in kernels().items():
    weight = _checked(arrays, f"{name}.conv.weight", (channels, before, height, width))
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = (_checked(arrays, f"{name}.bn.{p}", (channels,)) for p in parts)
    bad, field = variance < 0, f"{name}.bn.running_var"
    inputs.refuse_where(bad, variance, field, ("channel",), "a variance is 0 or more")
    scale = gain / np.sqrt(variance + _EPSILON)
    kernel = np.moveaxis(weight, (2, 3), (0, 1)).swapaxes(2, 3) * scale[None, None, None]
    params[f"{name}.kernel"] = jnp.asarray(_single(kernel, f"{name}.kernel"))
    params[f"{name}.bias"] = jnp.asarray(_single(bias - mean * scale, f"{name}.bias"))
  return params


@functools.cache
def kernels() -> dict[str, tuple[int, int, int, int]]:
  """The shape of every kernel, (height, width, in, out), by the name of its convolution."""
  found = {}

  def unit(name: str, x: Array, channels: int, kernel: tuple[int, int] = (1, 1), **how: Any):
    found[name] = (*kernel, x.shape[-1], channels)
    return _convolve(x, jnp.zeros(found[name]), **how)

  jax.eval_shape(functools.partial(_network, unit), jnp.zeros((1, SIDE, SIDE, 3)))
  return found


def name_of(params: Params) -> str:
  """The name of this feature space in results: "inception-2015 sha256:3f9ac2..."."""
  return f"inception-2015 sha256:{features_lib.digest(params, 12)}"


def _checked(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
  if name not in arrays:
    raise ValueError(f"no parameter {name}; this takes the state dict of pytorch-fid's Inception")
  axes = ("output", "input", "row", "column") if len(shape) == 4 else ("channel",)
  return inputs.floats(arrays[name], name, shape, axes=axes)


def _single(array: np.ndarray, field: str) -> np.ndarray:
  axes = tuple(f"axis {n}, place" for n in range(array.ndim))
  return inputs.numbers(array, field, array.shape, axes=axes, dtype=np.float32)


def _network(unit: Unit, x: Array) -> Array:
  within = lambda block: lambda name, *args, **how: unit(f"{block}.{name}", *args, **how)
  x = unit("Conv2d_1a_3x3", x, 32, (3, 3), stride=2, padding="VALID")
  x = unit("Conv2d_2a_3x3", x, 32, (3, 3), padding="VALID")
  x = unit("Conv2d_2b_3x3", x, 64, (3, 3))
  x = unit("Conv2d_3b_1x1", _halved(x), 80)
  x = unit("Conv2d_4a_3x3", x, 192, (3, 3), padding="VALID")
  x = _halved(x)
  for name, pooled in dict(Mixed_5b=32, Mixed_5c=64, Mixed_5d=64).items():
    x = _block_a(within(name), x, pooled)
  x = _block_b(within("Mixed_6a"), x)
  for name, inner in dict(Mixed_6b=128, Mixed_6c=160, Mixed_6d=160, Mixed_6e=192).items():
    x = _block_c(within(name), x, inner)
  x = _block_d(within("Mixed_7a"), x)
  x = _block_e(within("Mixed_7b"), x, _average)
  x = _block_e(within("Mixed_7c"), x, _maximum)
  return jnp.mean(x, (1, 2))


def _block_a(unit: Unit, x: Array, pooled: int) -> Array:
  """`[B, 35, 35, C]` to `[B, 35, 35, 224 + pooled]`."""
  five = unit("branch5x5_2", unit("branch5x5_1", x, 48), 64, (5, 5))
  three = unit("branch3x3dbl_1", x, 64)
  for name in ("branch3x3dbl_2", "branch3x3dbl_3"):
    three = unit(name, three, 96, (3, 3))
  pool = unit("branch_pool", _average(x), pooled)
  return jnp.concatenate([unit("branch1x1", x, 64), five, three, pool], -1)


def _block_b(unit: Unit, x: Array) -> Array:
  """`[B, 35, 35, C]` to `[B, 17, 17, 480 + C]`."""
  halve = dict(kernel=(3, 3), stride=2, padding="VALID")
  three = unit("branch3x3dbl_2", unit("branch3x3dbl_1", x, 64), 96, (3, 3))
  three = unit("branch3x3dbl_3", three, 96, **halve)
  return jnp.concatenate([unit("branch3x3", x, 384, **halve), three, _halved(x)], -1)


def _block_c(unit: Unit, x: Array, inner: int) -> Array:
  """`[B, 17, 17, C]` to `[B, 17, 17, 768]`; kernels of 7 along one axis, then the other."""
  row, column = (1, 7), (7, 1)
  seven = unit("branch7x7_2", unit("branch7x7_1", x, inner), inner, row)
  seven = unit("branch7x7_3", seven, 192, column)
  double = unit("branch7x7dbl_1", x, inner)
  for n, kernel in ((2, column), (3, row), (4, column)):
    double = unit(f"branch7x7dbl_{n}", double, inner, kernel)
  double = unit("branch7x7dbl_5", double, 192, row)
  pool = unit("branch_pool", _average(x), 192)
  return jnp.concatenate([unit("branch1x1", x, 192), seven, double, pool], -1)


def _block_d(unit: Unit, x: Array) -> Array:
  """`[B, 17, 17, C]` to `[B, 8, 8, 512 + C]`."""
  halve = dict(kernel=(3, 3), stride=2, padding="VALID")
  three = unit("branch3x3_2", unit("branch3x3_1", x, 192), 320, **halve)
  seven = unit("branch7x7x3_2", unit("branch7x7x3_1", x, 192), 192, (1, 7))
  seven = unit("branch7x7x3_4", unit("branch7x7x3_3", seven, 192, (7, 1)), 192, **halve)
  return jnp.concatenate([three, seven, _halved(x)], -1)


def _block_e(unit: Unit, x: Array, pool: Callable[[Array], Array]) -> Array:
  """`[B, 8, 8, C]` to `[B, 8, 8, 2048]`; two branches end in a row and a column each."""
  three = unit("branch3x3_1", x, 384)
  double = unit("branch3x3dbl_2", unit("branch3x3dbl_1", x, 448), 384, (3, 3))
  fork = lambda name, y: [unit(f"{name}a", y, 384, (1, 3)), unit(f"{name}b", y, 384, (3, 1))]
  ends = [*fork("branch3x3_2", three), *fork("branch3x3dbl_3", double)]
  pooled = unit("branch_pool", pool(x), 192)
  return jnp.concatenate([unit("branch1x1", x, 320), *ends, pooled], -1)


def _convolve(x: Array, weights: Array, stride: int = 1, padding: str = "SAME") -> Array:
  how = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=features_lib.EXACT)
  return jax.lax.conv_general_dilated(x, weights, (stride, stride), padding, **how)


def _window(x: Array, start: float, combine: Callable[..., Array], stride: int, padding: str):
  return jax.lax.reduce_window(x, start, combine, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _maximum(x: Array, stride: int = 1, padding: str = "SAME") -> Array:
  return _window(x, -jnp.inf, jax.lax.max, stride, padding)


_halved = functools.partial(_maximum, stride=2, padding="VALID")


def _average(x: Array) -> Array:
  """The mean over those of the 3 x 3 pixels that are within the image."""
  count = _window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, jax.lax.add, 1, "SAME")
  return _window(x, 0.0, jax.lax.add, 1, "SAME") / count


def _resized(images: Array, half_pixel: bool) -> Array:
  x = images.astype(jnp.float32)
  rows, columns = (_interpolation(n, SIDE, half_pixel) for n in x.shape[1:3])
  x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=features_lib.EXACT)
  return jnp.einsum("jw,biwc->bijc", columns, x, precision=features_lib.EXACT)


def _interpolation(size: int, to: int, half_pixel: bool) -> np.ndarray:
  shift = 0.5 * half_pixel
  at = ((np.arange(to) + shift) * size / to - shift).clip(0)
  low = np.floor(at).astype(int)
  weights = np.zeros((to, size))
  np.add.at(weights, (np.arange(to), low), 1 - (at - low))
  np.add.at(weights, (np.arange(to), np.minimum(low + 1, size - 1)), at - low)
  return weights.astype(np.float32)


_FROM_PIXELS = dict(
  tensorflow=lambda params, images: pool3(params, _resized(images, False) / 128 - 1),
  pytorch=lambda params, images: pool3(params, _resized(images, True) / 127.5 - 1),
)
