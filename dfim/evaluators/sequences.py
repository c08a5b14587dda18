"""Scores of sequences whose distribution can be sampled freely, such as the turning walk."""

from typing import Any

import numpy as np

from dfim.config.errors import FieldError
from dfim.evaluators import points, references
from dfim.evaluators.references import Data, Draw, Found
from dfim.io import inputs
from dfim.metrics import sequences
from dfim.viz import images as pictures


def scores(
  draw: Draw, params: Any, *, reference: Data, steps: tuple[int, ...] = (1, 2, 4, 8)
) -> Found:
  """`joint` and, of points of the plane, `turn` of as many samples as fresh data `x [N, T, D]`."""
  pairs = points.pairs(draw, params, reference["x"], steps)
  return {name: _row(*pair) for name, pair in pairs.items()}, {}


def check_scores(*, reference: Data, shape: tuple[int, ...] | None = None, **_: Any) -> None:
  """Raises ValueError for arguments that `scores` cannot take; `shape` is a sample's."""
  x = references.examples(reference, "reference", 3, least=points.LEAST_EXAMPLES)
  if shape is not None and x.shape[1:] != shape:
    said = f": sequences of shape {x.shape[1:]}, samples are of {shape}; "
    raise FieldError("reference.x", x, "name the same data.", said)
  if x.shape[2] == 2 and x.shape[1] < 2:
    raise ValueError("reference.x: sequences of 1 point of the plane, which has no turn; give 2.")


def _row(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
  row = dict(zip(("joint", "joint_se"), sequences.joint(x, y), strict=True))
  if x.shape[-1] != 2:
    return row
  return row | dict(zip(("turn", "turn_se"), sequences.turn(x, y), strict=True))


def rollout(draw: Draw, params: Any, *, reference: Data, steps: int, tokens: int = 3) -> Found:
  """`local` of `metrics.sequences` along sequences as long as `reference`'s, and a figure."""
  x = reference["x"]
  drawn = draw(params, len(x), steps, length=x.shape[1])
  values, errors = sequences.local(drawn, x, tokens=tokens)
  positions = range(tokens, x.shape[1] + 1)
  found = zip(positions, values.tolist(), errors.tolist(), strict=True)
  rows = {f"token {k}": dict(local=value, local_se=se) for k, value, se in found}
  return rows, {"tracks": pictures.tracks(drawn[:40], (-1.0, 1.0))}


def check_rollout(*, reference: Data, tokens: int = 3, any_length: bool = True, **_: Any) -> None:
  """Raises ValueError for arguments that `rollout` cannot take; `any_length` is the sampler's."""
  x = references.examples(reference, "reference", 3, least=3)
  if inputs.whole(tokens, "tokens", low=1) > x.shape[1]:
    raise FieldError("tokens", tokens, f"the sequences of reference have {x.shape[1]}; give fewer.")
  if not any_length:
    raise ValueError("rollout: set sampler.rollout, without sampler.rollout.length.")
