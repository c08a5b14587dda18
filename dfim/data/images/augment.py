"""EDM's augmentation of small images, which the network is told of, so that samples stay plain.

Source: Karras et al., arXiv 2206.00364, section 5 and appendix F.2 (table 6): an image undergoes
one combined geometric transformation of eight random parameters, and the network is conditioned on
nine numbers made of them. All zeros stand for an image as it was, which is what sampling asks for.
"""

from concurrent import futures
import dataclasses

import numpy as np
from scipy import ndimage

LABELS = 9  # numbers that the network is told
_X, _Y, _SCALE, _TURN, _AXIS, _SQUEEZE, _RIGHT, _DOWN = range(8)  # columns of the parameters


@dataclasses.dataclass(frozen=True)
class EDM:
  """Which transformations, how often and how far.

  They run in the order of the fields: mirror, turn upside down, scale, rotate, squeeze along an
  axis, move. The mirror is drawn always (a fair coin), the others with probability `rate` each.
  It comes on top of a source's own `flip`, of which the network is not told; IMM uses both.

  Attributes:
    rate: the paper's A_prob; .12 on CIFAR-10.
    x_flip: whether to mirror.
    y_flip: whether to turn upside down.
    scale: octaves of a standard deviation of the logarithm of the scale; A_scale = 2^.2.
    rotate: whether to rotate, by any angle.
    squeeze: the same for the ratio of the axes; A_aniso = 2^.2.
    squeeze_turned: how often the squeezed axis is turned, by any angle; the paper says always, the
      program that it released, and that IMM trained with, half the time.
    move: the standard deviation of the translation, as a part of the image; A_trans = 1/8.
    threads: that images are transformed in.
  """

  rate: float = 0.12
  x_flip: bool = True
  y_flip: bool = True
  scale: float = 0.2
  rotate: bool = True
  squeeze: float = 0.2
  squeeze_turned: float = 1.0
  move: float = 0.125
  threads: int = 4

  def __post_init__(self):
    for field in ("rate", "squeeze_turned"):
      if not 0.0 <= getattr(self, field) <= 1.0:
        raise ValueError(f"data.augment.{field}={getattr(self, field)}: a share lies in [0, 1]")
    for field in ("scale", "squeeze", "move"):
      if getattr(self, field) < 0.0:
        raise ValueError(f"data.augment.{field}={getattr(self, field)}: set it to 0 or more")
    if self.threads < 1:
      raise ValueError(f"data.augment.threads={self.threads}: set it to 1 or more")

  def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
    """Parameters a_0 .. a_7 of `size` images, `[size, 8]`; zeros leave an image as it is."""
    coins = rng.integers(0, 2, (size, 2))
    angles = rng.uniform(-np.pi, np.pi, (size, 2))
    normals = rng.standard_normal((size, 4))
    happens = rng.random((size, 5)) < self.rate
    turned = rng.random(size) < self.squeeze_turned
    y, scales, turns, squeezes, moves = happens.T
    return np.stack(
      [
        coins[:, 0] * self.x_flip,
        coins[:, 1] * (y & self.y_flip),
        normals[:, 0] * (scales & (self.scale > 0)),
        angles[:, 0] * (turns & self.rotate),
        angles[:, 1] * (squeezes & turned & (self.squeeze > 0)),
        normals[:, 1] * (squeezes & (self.squeeze > 0)),
        normals[:, 2] * (moves & (self.move > 0)),
        normals[:, 3] * (moves & (self.move > 0)),
      ],
      axis=1,
    )

  def labels(self, drawn: np.ndarray) -> np.ndarray:
    """What the network is told of parameters `[B, 8]`: float32 `[B, 9]`, zeros for none.

    Angles enter by sine and cosine, for a turn by pi is one by -pi.
    """
    a = drawn.T
    told = [a[_X], a[_Y], a[_SCALE], np.cos(a[_TURN]) - 1, np.sin(a[_TURN])]
    told += [a[_SQUEEZE] * np.cos(a[_AXIS]), a[_SQUEEZE] * np.sin(a[_AXIS]), a[_RIGHT], a[_DOWN]]
    return np.stack(told, axis=1).astype(np.float32)

  def transform(self, x: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Images float32 `[B, H, W, C]` transformed by parameters `[B, 8]`, of the same shape.

    Both mirrors are exact. The rest is one warp by cubic splines, exact on quarter turns and whole
    pixels, that mirrors what lies beyond the border. Values may overshoot those of x a little.
    """
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
    """The warps of parameters `[B, 8]`: `[B, 3, 3]`, on (right, down, 1) from the image's centre.

    They map where a pixel is to where it goes, in pixels, without the mirrors.
    """
    a = drawn.T
    height, width = shape
    scale, ratio = 2.0 ** (self.scale * a[_SCALE]), 2.0 ** (self.squeeze * a[_SQUEEZE])
    turned = _rotation(a[_AXIS])
    squeeze = turned @ _scaling(ratio, 1.0 / ratio) @ turned.swapaxes(1, 2)
    move = np.tile(np.eye(3), (len(drawn), 1, 1))
    move[:, :2, 2] = self.move * np.stack([width * a[_RIGHT], height * a[_DOWN]], axis=1)
    return move @ squeeze @ _rotation(-a[_TURN]) @ _scaling(scale, scale)


def _scaling(right: np.ndarray, down: np.ndarray) -> np.ndarray:
  """`[B]` each to `[B, 3, 3]`."""
  matrix = np.zeros((len(right), 3, 3))
  matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = right, down, 1.0
  return matrix


def _rotation(angle: np.ndarray) -> np.ndarray:
  """`[B]` to `[B, 3, 3]`: from the axis to the right towards the one down."""
  cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
  rows = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
  return np.moveaxis(np.array(rows), -1, 0)


def _warped(x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
  """Images `[B, H, W, C]` whose pixels go where `matrices` `[B, 3, 3]` send them."""
  out = np.empty_like(x)
  spline = x
  for axis in (1, 2):
    spline = ndimage.spline_filter1d(spline, 3, axis, np.float32, mode="mirror")
  inverse = np.linalg.inv(matrices)
  linear = inverse[:, 1::-1, 1::-1]  # arrays count down, then right
  centre = (np.array(x.shape[1:3]) - 1) / 2
  offset = centre - linear @ centre + inverse[:, 1::-1, 2]
  for b, c in np.ndindex(len(x), x.shape[-1]):
    ndimage.affine_transform(
      spline[b, ..., c], linear[b], offset[b], output=out[b, ..., c], mode="mirror", prefilter=False
    )
  return out
