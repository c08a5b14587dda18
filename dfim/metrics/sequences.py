"""Distances between sets of sequences `[N, T, D]`, without bias, each with its standard error.

Where sequences have conditions, `conditions` are those of both sets, of the kinds of
`core.conditioning`. A discrete one is coded as one number for each of its values. Each is scaled to
the variance of one token of the fresh data, summed over numbers, so that units do not matter.
"""

from collections.abc import Iterator
import math
from typing import Any

import numpy as np

from dfim.core import conditioning
from dfim.io import inputs
from dfim.metrics import distances, neighbours as neighbours_lib, subsets

Conditions = tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None  # of x, of y
_JOINT, _LOCAL = 20_000, 2000  # sequences compared at most: 10 s on a core, 0.1 s a position
_TOKENS, _NUMBERS = 120_000, 2**24  # compared by `following` at most: 3 s, 10 s on a core
_LEAST, _MOST = 3, 1000  # points compared in a cell, of either set; equal prefixes fill one


def turning_angles(x: np.ndarray) -> np.ndarray:
  """Angles `[N, T - 1]` at the origin from each point of `[N, T, 2]` to the next, in (-pi, pi]."""
  x = inputs.examples(x, "turning_angles: x", 3)
  if x.shape[1] < 2 or x.shape[2] != 2:
    raise ValueError(f"turning_angles: x of shape {x.shape}: give [N, T, 2] with T >= 2.")
  (a, b), (c, d) = np.moveaxis(x[:, :-1], -1, 0), np.moveaxis(x[:, 1:], -1, 0)
  angle = np.arctan2(a * d - b * c, a * c + b * d)
  return np.where(angle == -np.pi, np.pi, angle)  # of -0.0


def joint(x: np.ndarray, y: np.ndarray, *, conditions: Conditions = None) -> tuple[float, float]:
  """`distances.energy_distance` of whole sequences to fresh data `[M, T, D]`, of 20,000 at most.

  With conditions, of sequences and their conditions together.
  """
  x, y = (_flat(*a) for a in _sets(x, y, conditions, "joint"))
  return distances.energy_distance(*(a[subsets.choose(a, _JOINT)] for a in (x, y)))


def following(
  x: np.ndarray, y: np.ndarray, *, conditions: Conditions = None, neighbours: int = 32
) -> tuple[float, float]:
  """Energy distance of a token, given its prefix, to fresh data `[M, T, D]`; the mean over tokens.

  A prefix is all tokens before, and conditions up to the token's own. Tokens are compared within
  cells of similar prefixes: those nearest to the prefix of one of a few fresh sequences, which are
  held out. A cell has `neighbours` fresh tokens on average, and counts as often as it has; one with
  fewer than three of a set is left out, and NaN returned where all are. The jackknife's standard
  error is rather too large where the distributions agree.
  """
  neighbours = inputs.whole(neighbours, "following: neighbours", low=_LEAST)
  x, y = _sets(x, y, conditions, "following")
  tokens, size = x[0].shape[1], x[0][0].size
  if tokens + len(x) < 3:
    raise ValueError("following: sequences of 1 token, which has no prefix; give 2.")
  most = max(min(_TOKENS // tokens, _NUMBERS // size), _LEAST)
  order = subsets.shuffle(y[0])[:most]
  held_out = len(order) // (neighbours + 1)
  part = lambda arrays, rows: [a[rows] for a in arrays]
  centres = part(y, order[: max(held_out, 1)])  # of one, whose cell is everything, nothing depends
  x, y = part(x, subsets.shuffle(x[0])[:most]), part(y, order[held_out:])
  prefixes = lambda i: (_prefix(a, i) for a in (x, y, centres))
  cells = ((i, *rows) for i in range(tokens) for rows in _cells(*prefixes(i)))
  return _mean_distance(x[0], y[0], cells)


def turn(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """`distances.energy_distance` of turning angles `[N, T, 2]`; no pair comes from one sequence."""
  x, y = turning_angles(x), turning_angles(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(f"turn: sequences of {x.shape[1] + 1} and of {y.shape[1] + 1} tokens")
  return distances.energy_distance(x.reshape(-1, 1), y.reshape(-1, 1), group=x.shape[1])


def local(x: np.ndarray, y: np.ndarray, *, tokens: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Energy distance of the stretch of `tokens` that ends at each position, and its standard error.

  Of `x` `[N, T, D]`, to fresh data `y` `[M, T, D]` or longer: `[T - tokens + 1]` each.
  """
  tokens = inputs.whole(tokens, "local: tokens", low=1)
  x, y = (_part(a, f"local: {name}", _LOCAL) for name, a in dict(x=x, y=y).items())
  if not tokens <= x.shape[1] <= y.shape[1]:
    raise ValueError(f"local: {x.shape[1]} tokens, {y.shape[1]} fresh ones, stretches of {tokens}.")
  stretches = (slice(k, k + tokens) for k in range(x.shape[1] - tokens + 1))
  return tuple(np.transpose([distances.energy_distance(x[:, k], y[:, k]) for k in stretches]))


def _mean_distance(
  x: np.ndarray, y: np.ndarray, cells: Iterator[tuple[int, np.ndarray, np.ndarray]]
) -> tuple[float, float]:
  """The mean distance over fresh tokens of cells `(token, rows of x, rows of y)`, and its error.

  What leaving out one sequence changes is summed over all its tokens.
  """
  total, count = 0.0, np.zeros(len(y))
  change_x, change_y = np.zeros(len(x)), np.zeros(len(y))
  for i, a, b in cells:
    rows_x, rows_y = a[:_MOST], b[:_MOST]
    value, of_x, of_y = distances.energy_changes(x[rows_x, i], y[rows_y, i])
    total += len(b) * value
    count[b] += 1
    change_x[rows_x] += len(b) * of_x
    change_y[rows_y] += len(b) * of_y
    change_y[b] -= value
  if not count.any():
    return np.nan, np.nan
  mean = total / count.sum()
  change_y += mean * count
  return float(mean), float(np.sqrt(np.sum(change_x**2) + np.sum(change_y**2)) / count.sum())


def _cells(
  x: np.ndarray, y: np.ndarray, centres: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Rows of prefixes `x [N, F]` and `y [M, F]` nearest to each of `centres`, three of each set."""
  if not centres.shape[1]:
    return
  nearest = [neighbours_lib.nearest(a, centres)[1] for a in (x, y)]
  ends = [np.cumsum(np.bincount(a, minlength=len(centres)))[:-1] for a in nearest]
  rows = (np.split(np.argsort(a, kind="stable"), end) for a, end in zip(nearest, ends, strict=True))
  yield from (cell for cell in zip(*rows, strict=True) if min(map(len, cell)) >= _LEAST)


def _prefix(arrays: list[np.ndarray], i: int) -> np.ndarray:
  """All tokens before token i, and the conditions up to its own, `[N, F]`."""
  x, *conditions = arrays
  return _flat(x[:, :i], *(c[:, : i + 1] if c.ndim == 3 else c for c in conditions))


def _flat(*arrays: np.ndarray) -> np.ndarray:
  return np.concatenate([a.reshape(len(a), math.prod(a.shape[1:])) for a in arrays], axis=1)


def _sets(x: Any, y: Any, conditions: Conditions, name: str) -> tuple[list[np.ndarray], ...]:
  """Sequences, then their coded conditions, of both sets."""
  x, y = (inputs.examples(a, f"{name}: {n}", 3, least=3) for n, a in dict(x=x, y=y).items())
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(f"{name}: y of {y.shape[1:]} numbers each, x of {x.shape[1:]}: give the same.")
  of_x, of_y = conditions or ({}, {})
  conditioning.check(of_x, x.shape)
  conditioning.check(of_y, y.shape)
  form = lambda cond: {k: (a.shape[1:], conditioning.is_discrete(a)) for k, a in cond.items()}
  if form(of_x) != form(of_y):
    raise ValueError(f"{name}: conditions of {sorted(of_x)} and {sorted(of_y)}: give the same.")
  coded = [_coded(of_x[k], of_y[k], _spread(y)) for k in of_y]
  return [x, *(u for u, _ in coded)], [y, *(v for _, v in coded)]


def _coded(u: np.ndarray, v: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
  """A condition of both sets as vectors `[N, T, C]` or `[N, C]` of that spread."""
  if conditioning.is_discrete(v):
    values = np.unique(np.concatenate([u.ravel(), v.ravel()]))
    u, v = (np.eye(len(values))[np.searchsorted(values, a)] for a in (u, v))
  u, v = (np.asarray(a, np.float64) for a in (u, v))
  scale = spread / (_spread(v) or 1.0)
  return scale * u, scale * v


def _spread(a: np.ndarray) -> float:
  """The root of the variance of vectors `[N, ..., C]`, summed over C, the mean of axes between."""
  return float(np.sqrt(a.var(axis=0).sum(axis=-1).mean()))


def _part(x: Any, field: str, count: int) -> np.ndarray:
  x = inputs.examples(x, field, 3, least=3)
  return x[subsets.choose(x, count)]
