"""Scores of sequences whose distribution can be drawn from at will, such as the turning walk."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.evaluators import points, references
from dfim.io import inputs
from dfim.metrics import sequences
from dfim.viz import images as pictures


def scores(
  draw: Callable[..., np.ndarray],
  params: Any,
  *,
  reference: dict[str, np.ndarray],
  steps: tuple[int, ...] = (1, 2, 4, 8),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Compares as many samples as `reference` has with it, for each number of `steps`.

  Args:
    draw: `sample.make_draw`'s.
    params: the weights to draw with.
    reference: fresh data, `x` `[N, T, D]`.
    steps: numbers of steps of the sampler, for each token of an autoregressive schedule.

  Returns:
    `joint` and, of points of the plane, `turn` of `metrics.sequences`, with standard errors, for
    each number of steps, and between random halves of the reference, whose distance is 0 on
    average. No figures.
  """
  pairs = points.beside(draw, params, reference["x"], steps)
  return {name: _row(*pair) for name, pair in pairs.items()}, {}


def check_scores(
  *,
  reference: dict[str, np.ndarray],
  steps: tuple[int, ...] = (1, 2, 4, 8),
  shape: tuple[int, ...] | None = None,
) -> None:
  """Refuses arguments of `scores` that it cannot take, before anything is trained.

  `shape` is that of a sample, if it is known.

  Raises:
    ValueError: naming the argument.
  """
  del steps  # which every evaluator's are checked for
  x = references.examples(reference, "reference", 3, least=points.LEAST_EXAMPLES)
  if shape is not None and x.shape[1:] != shape:
    raise ValueError(f"reference.x: sequences of shape {x.shape[1:]}, samples are of {shape}.")
  if x.shape[2] == 2 and x.shape[1] < 2:
    raise ValueError("reference.x: sequences of 1 point of the plane, which has no turn; give 2.")


def _row(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
  joint, joint_se = sequences.joint(x, y)
  row = dict(joint=joint, joint_se=joint_se)
  if x.shape[-1] == 2:  # points of the plane, which have directions
    turn, turn_se = sequences.turn(x, y)
    row |= dict(turn=turn, turn_se=turn_se)
  return row


def rollout(
  draw: Callable[..., np.ndarray],
  params: Any,
  *,
  reference: dict[str, np.ndarray],
  steps: int,
  tokens: int = 3,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The error along sequences as long as `reference`'s, longer than the model was trained on.

  Args:
    draw: `sample.make_draw`'s, of a rollout.
    params: the weights to draw with.
    reference: fresh data, `x` `[N, T, D]`.
    steps: of the sampler.
    tokens: how many neighbouring tokens are compared at a time.

  Returns:
    `local` of `metrics.sequences` and its standard error at each position, and a figure of them.
  """
  x = reference["x"]
  drawn = draw(params, len(x), steps, length=x.shape[1])
  values, errors = sequences.local(drawn, x, tokens=tokens)
  positions = range(tokens, x.shape[1] + 1)
  found = zip(positions, values.tolist(), errors.tolist(), strict=True)
  rows = {f"token {k}": dict(local=value, local_se=se) for k, value, se in found}
  return rows, {"tracks": pictures.tracks(drawn[:40], (-1.0, 1.0))}


def check_rollout(
  *,
  reference: dict[str, np.ndarray],
  steps: int,
  tokens: int = 3,
  any_length: bool = True,
) -> None:
  """Refuses arguments of `rollout` that it cannot take, before anything is trained.

  `any_length` says whether the sampler draws sequences of any length.

  Raises:
    ValueError: naming the argument.
  """
  del steps  # which every evaluator's are checked for
  x = references.examples(reference, "reference", 3, least=3)
  if inputs.whole(tokens, "tokens", low=1) > x.shape[1]:
    raise ValueError(f"tokens={tokens}: the sequences of reference have {x.shape[1]}; give fewer.")
  if not any_length:
    raise ValueError(
      "rollout: needs a sampler of any length; set sampler.rollout, without sampler.rollout.length."
    )
