"""Whether paths of the cross (`data.synthetic.cross`) are whole, or stitched from parts of two."""

import numpy as np

from dfim.data.synthetic.cross import HALF_WIDTH
from dfim.io import inputs


def shares(x: np.ndarray, *, tolerance: float = 0.2) -> dict[str, float]:
  """Of paths `[N, T, 2]`, the shares that are whole, stitched, returned and off the cross.

  A path lies on the cross if it begins and ends within `tolerance` of a corner, passes the centre
  and keeps to the diagonals as closely. It is `whole` if it ends in the corner opposite to its
  start, as all data do; `stitched` if in an adjacent one, a V; `returned` if where it began.
  """
  x = inputs.examples(x, "x", 3)
  if x.shape[2] != 2:
    raise ValueError(f"x of shape {x.shape}: give paths of the plane, [N, T, 2].")
  inputs.number(tolerance, "tolerance", above=0)
  start, end = np.where(x[:, 0] > 0, 1, -1), np.where(x[:, -1] > 0, 1, -1)  # the corners' signs
  miss = lambda p, corner: np.linalg.norm(p - HALF_WIDTH * corner, axis=-1)
  on_cross = (miss(x[:, 0], start) <= tolerance) & (miss(x[:, -1], end) <= tolerance)
  on_cross &= np.linalg.norm(x, axis=-1).min(1) <= tolerance
  off_diagonal = np.abs(np.abs(x[..., 0]) - np.abs(x[..., 1])) / np.sqrt(2)  # of the nearer one
  on_cross &= off_diagonal.max(1) <= tolerance
  kept = (start == end).sum(1)  # signs: none of the opposite corner, both of the same
  found = {name: on_cross & (kept == n) for n, name in enumerate(("whole", "stitched", "returned"))}
  return {name: float(np.mean(a)) for name, a in found.items()} | dict(
    off=float(np.mean(~on_cross))
  )
