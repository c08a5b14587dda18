"""Windows of recorded episodes: positions every few steps, of a point in a maze."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.data.trajectories import point_maze
from dfim.envs import mazes
from dfim.io import inputs

Recipe = point_maze.Recipe


@dataclasses.dataclass(frozen=True)
class Window:
  """How windows are cut out of episodes.

  Attributes:
    tokens: of a window.
    stride: steps from one of its positions to the next.
    stack: successive positions in one token.
    actions: whether each position is followed by the mean action of the `stride` steps after it.
    goal: if given, the condition `goal` is the position so many steps after the window's last one.
  """

  tokens: int
  stride: int = 5
  stack: int = 1
  actions: bool = False
  goal: int | None = None

  def __post_init__(self):
    for name in ("tokens", "stride", "stack"):
      inputs.whole(getattr(self, name), name, low=1)
    if self.goal is not None:
      inputs.whole(self.goal, "goal", low=0)

  @property
  def positions(self) -> int:
    """How many positions a window has."""
    return self.tokens * self.stack

  @property
  def steps(self) -> int:
    """The steps of an episode that a window needs, those of its goal and its actions too."""
    after = max(self.goal or 0, self.stride - 1 if self.actions else 0)
    return (self.positions - 1) * self.stride + 1 + after


def windows(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  recipe: Recipe,
  window: Window,
  rest: float = 0.1,
  standing: int = 4,
  split: str = "train",
  cache: str | os.PathLike | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of windows, each within one episode; see `data.base` for the contract.

  `x [B, tokens, stack D]`, D = 2 or with actions 4, and `cond.goal [B, 2]`. Positions and goals are
  normalized (`mazes.normalize`), actions are in [-1, 1]. A share `rest` of the windows begins with
  a point that stands for 1 to `standing` further positions, as it does before an episode.
  """
  if not 0 <= inputs.number(rest, "data.rest") <= 1:
    raise FieldError("data.rest", rest, "a share lies in [0, 1].")
  inputs.whole(standing, "data.standing", low=1)
  count = _count(recipe, window, split)
  take = base.rows(count, batch_size, seed, process=process)
  part, numbers = base.share(batch_size, process), base.count_from(start)
  data = point_maze.recorded(recipe, split, cache)

  def batch(n: int) -> dict[str, Any]:
    rng = np.random.default_rng((seed, n, 1))
    lag = (rng.random(batch_size) < rest) * rng.integers(1, standing + 1, batch_size)
    return _cut(recipe, window, data, take(n), lag[part])

  examples = functools.partial(_cut, recipe, window, data)
  return base.Batches(map(batch, numbers), count, examples)


def load(
  *,
  recipe: Recipe,
  window: Window,
  split: str = "validation",
  size: int | None = 2000,
  cache: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """`size` windows of a split as by `windows`, evenly spread and without rest, or all."""
  count = _count(recipe, window, split)
  size = count if size is None else min(count, inputs.whole(size, "data.size", low=1))
  numbers = base.evenly_spread(count, size)
  return _cut(recipe, window, point_maze.recorded(recipe, split, cache), numbers)


def _count(recipe: Recipe, window: Window, split: str) -> int:
  """How many windows a split has; raises FieldError where none fits into an episode."""
  episodes, steps = recipe.size(split)
  if window.steps > steps:
    fix = f"it needs {window.steps} steps, episodes have {steps}; take fewer tokens or steps."
    raise FieldError("data.window", window, fix)
  return episodes * (steps - window.steps + 1)


def _cut(
  recipe: Recipe,
  window: Window,
  data: point_maze.Arrays,
  numbers: np.ndarray,
  lag: np.ndarray | int = 0,
) -> dict[str, Any]:
  """Windows by number `[N]`, whose first position is repeated `lag [N]` times."""
  lag = np.broadcast_to(lag, numbers.shape)[:, None]
  starts = recipe.size("train")[1] - window.steps + 1  # in an episode
  episode, first = (a[:, None] for a in np.divmod(numbers, starts))
  place = np.arange(window.positions)[None]
  at = first + window.stride * np.maximum(place - lag, 0)
  shown = lambda at: mazes.normalize(mazes.named(recipe.maze), data["position"][episode, at])
  x = shown(at)
  if window.actions:
    steps = at[..., None] + np.arange(window.stride)
    action = data["action"][episode[..., None], steps].mean(2)
    x = np.concatenate([x, np.where((place >= lag)[..., None], action, 0)], axis=-1)
  x = x.reshape(len(numbers), window.tokens, -1).astype(np.float32)
  if window.goal is None:
    return dict(x=x)
  return dict(x=x, cond=dict(goal=shown(at[:, -1:] + window.goal)[:, 0]))
