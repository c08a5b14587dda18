"""EDM's augmentation of small images, on which the network is conditioned: samples stay plain.

Source: Karras et al., arXiv 2206.00364, section 5 and appendix F.2 (table 6).
"""

from concurrent import futures
import dataclasses

import numpy as np
from scipy import ndimage

from dfim.io import inputs

LABELS = 9  # numbers in the condition
_X, _Y, _SCALE, _TURN, _AXIS, _SQUEEZE, _RIGHT, _DOWN = range(8)  # columns of the parameters
_OCTAVES = 0.2  # std of log2 of the scale and of the ratio of the axes: A_scale = A_aniso = 2^.2
_MOVE = 0.125  # std of the translation, as a part of the image: A_trans


@dataclasses.dataclass(frozen=True)
class EDM:
  """Mirror, turn upside down, scale, rotate, squeeze along an axis and move, in this order.

  The mirror is a fair coin, the others happen with probability `rate` each (A_prob). It is in
  addition to a source's own `flip`, which is not part of the condition. The squeezed axis is turned
  with probability `squeeze_turned`: always in the paper, half the time in EDM's program and IMM's.
  """

  rate: float = 0.12
  x_flip: bool = True
  squeeze_turned: float = 1.0
  threads: int = 4

  def __post_init__(self):
    for field in ("rate", "squeeze_turned"):
      if not 0.0 <= getattr(self, field) <= 1.0:
        raise ValueError(f"data.augment.{field}={getattr(self, field)}: a share lies in [0, 1]")
    inputs.whole(self.threads, "data.augment.threads", low=1)

  def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
    """Parameters a_0 .. a_7 of `size` images, `[size, 8]`; zeros leave an image as it is."""
    coins = rng.integers(0, 2, (size, 2))
    angles = rng.uniform(-np.pi, np.pi, (size, 2))
    normals = rng.standard_normal((size, 4))
    happens = rng.random((size, 5)) < self.rate
    turned = rng.random(size) < self.squeeze_turned
    y, scales, turns, squeezes, moves = happens.T
    (x_coin, y_coin), (angle, axis) = coins.T, angles.T
    columns = [x_coin * self.x_flip, y_coin * y, normals[:, 0] * scales, angle * turns]
    columns += [axis * (squeezes & turned), normals[:, 1] * squeezes, *(normals[:, 2:].T * moves)]
    return np.stack(columns, axis=1)

  def labels(self, drawn: np.ndarray) -> np.ndarray:
    """The condition `[B, 9]`, float32, of parameters `[B, 8]`; zeros of zeros."""
    a = drawn.T
    found = [a[_X], a[_Y], a[_SCALE], np.cos(a[_TURN]) - 1, np.sin(a[_TURN])]
    found += [a[_SQUEEZE] * np.cos(a[_AXIS]), a[_SQUEEZE] * np.sin(a[_AXIS]), a[_RIGHT], a[_DOWN]]
    return np.stack(found, axis=1).astype(np.float32)

  def transform(self, x: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Images float32 `[B, H, W, C]` transformed by parameters `[B, 8]`; mirrors are exact."""
    mirrored, upside_down = (drawn[:, i] > 0 for i in (_X, _Y))
    x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    x = np.where(upside_down[:, None, None, None], x[:, ::-1], x)
    rows = np.flatnonzero(np.any(drawn[:, _SCALE:] != 0, axis=1))
    matrices = self.matrices(drawn[rows], x.shape[1:3])
    with futures.ThreadPoolExecutor(self.threads) as pool:  # scipy lets go of the interpreter
      shares = (np.array_split(a, self.threads) for a in (rows, matrices))
      done = list(pool.map(lambda share, m: _warped(x[share], m), *shares))
    x[rows] = np.concatenate(done)
    return x

  def matrices(self, drawn: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Warps `[B, 3, 3]` of parameters `[B, 8]`: of (right, down, 1) from the centre, in pixels."""
    a = drawn.T
    height, width = shape
    scale, ratio = 2.0 ** (_OCTAVES * a[_SCALE]), 2.0 ** (_OCTAVES * a[_SQUEEZE])
    turned = _rotation(a[_AXIS])
    squeeze = turned @ _scaling(ratio, 1.0 / ratio) @ turned.swapaxes(1, 2)
    move = np.tile(np.eye(3), (len(drawn), 1, 1))
    move[:, :2, 2] = _MOVE * np.stack([width * a[_RIGHT], height * a[_DOWN]], axis=1)
    return move @ squeeze @ _rotation(-a[_TURN]) @ _scaling(scale, scale)


def _scaling(right: np.ndarray, down: np.ndarray) -> np.ndarray:
  return np.stack([right, down, np.ones_like(right)], axis=1)[:, :, None] * np.eye(3)


def _rotation(angle: np.ndarray) -> np.ndarray:
  """`[B]` to `[B, 3, 3]`: from the axis to the right towards the one down."""
  cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
  rows = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
  return np.moveaxis(np.array(rows), -1, 0)


def _warped(x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
  """Images `[B, H, W, C]` whose pixels go where `matrices` `[B, 3, 3]` send them."""
  out, spline = np.empty_like(x), x
  for axis in (1, 2):
    spline = ndimage.spline_filter1d(spline, 3, axis, np.float32, mode="mirror")
  inverse = np.linalg.inv(matrices)
  linear = inverse[:, 1::-1, 1::-1]  # arrays count down, then right
  centre = (np.array(x.shape[1:3]) - 1) / 2
  offset = centre - linear @ centre + inverse[:, 1::-1, 2]
  how = dict(mode="mirror", prefilter=False)
  for b, c in np.ndindex(len(x), x.shape[-1]):
    pixels, warped = spline[b, ..., c], out[b, ..., c]
    ndimage.affine_transform(pixels, linear[b], offset[b], output=warped, **how)
  return out
