"""Episodes of OGBench's expert in the point mazes.

The recipe is that of OGBench's data sets `pointmaze-*-navigate-v0` and `-stitch-v0`: the action is
the unit vector to the next cell on the shortest path, plus noise. Episodes are generated, a million
steps in seconds, and may be cached; nothing is downloaded.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.envs import mazes, paths, point_maze
from dfim.io import atomic, inputs, npz

Array = jax.Array
Arrays = dict[str, np.ndarray]

KINDS = ("navigate", "stitch")
SPLITS = ("train", "validation")
_STITCH = 4  # cells from start to goal
_VERSION = 1  # of the generator: a change of its episodes needs another


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Which episodes.

  Attributes:
    maze: "medium", "large", "giant" or "teleport".
    kind: "navigate" (a new random goal whenever one is reached) or "stitch" (one goal, four cells
      away).
    seed: of the episodes.
    episodes, steps: how many, and how long; by default the published million steps.
    noise: standard deviation of the noise of actions, in each axis.
  """

  maze: str
  kind: str = "navigate"
  seed: int = 0
  episodes: int | None = None
  steps: int | None = None
  noise: float = 0.5

  def __post_init__(self):
    mazes.named(self.maze)
    if self.kind not in KINDS:
      raise FieldError("kind", self.kind, f"give one of {', '.join(KINDS)}.")
    inputs.whole(self.seed, "seed", low=0)
    for name in ("episodes", "steps"):
      if getattr(self, name) is not None:
        inputs.whole(getattr(self, name), name, low=1)
    inputs.number(self.noise, "noise", low=0)

  def size(self, split: str) -> tuple[int, int]:
    """How many episodes a split has, and their steps; the validation has a tenth of training's."""
    base.check_split(split, SPLITS)
    giant = (500, 2001) if self.maze == "giant" else (1000, 1001)
    episodes, steps = giant if self.kind == "navigate" else (5000, 201)
    episodes, steps = self.episodes or episodes, self.steps or steps
    return (episodes if split == "train" else max(1, episodes // 10)), steps


def recorded(recipe: Recipe, split: str, cache: str | os.PathLike | None = None) -> Arrays:
  """The episodes of a split: `position` and the `action` there, float32 `[episodes, steps, 2]`.

  Read from the folder `cache` if it has them, else generated, and kept there. ValueError for a
  damaged file.
  """
  if cache is None:
    return generate(recipe, split)
  path = path_of(recipe, split, cache)
  if path.exists():
    return _read(path, (*recipe.size(split), 2))
  data = generate(recipe, split)
  atomic.replace(path, lambda file: np.savez(file, **data))
  return data


def path_of(recipe: Recipe, split: str, cache: str | os.PathLike) -> pathlib.Path:
  """The file in which `recorded` keeps a split; its name has a hash of all that determines it."""
  facts = dict(version=_VERSION, split=split, size=recipe.size(split), noise=float(recipe.noise))
  facts |= dict(
    kind=recipe.kind, seed=recipe.seed, maze=dataclasses.asdict(mazes.named(recipe.maze))
  )
  digest = hashlib.sha256(atomic.to_json(facts).encode()).hexdigest()[:12]
  return inputs.path(cache, "cache") / f"pointmaze-{recipe.maze}-{recipe.kind}-{split}-{digest}.npz"


@functools.lru_cache(maxsize=2)  # training and validation: a source is opened more than once
def generate(recipe: Recipe, split: str) -> Arrays:
  """The episodes of `recorded`, without a file."""
  episodes, steps = recipe.size(split)
  how = dict(kind=recipe.kind, episodes=episodes, steps=steps, noise=float(recipe.noise))
  with jax.default_device(jax.local_devices(backend="cpu")[0]):  # accelerators round otherwise
    key = jax.random.fold_in(jax.random.key(recipe.seed), zlib.crc32(split.encode()))
    found = jax.device_get(_episodes(key, mazes.named(recipe.maze), **how))
  for array in found.values():
    array.setflags(write=False)  # as it is shared
  return found


@functools.partial(jax.jit, static_argnames=("maze", "kind", "episodes", "steps", "noise"))
def _episodes(
  key: Array, maze: mazes.Maze, kind: str, episodes: int, steps: int, noise: float
) -> dict[str, Array]:
  """The expert's episodes; in `navigate` a goal that is reached is replaced."""
  k1, k2, k3 = jax.random.split(key, 3)
  direction, slide, teleport = (
    jax.vmap(functools.partial(f, maze))
    for f in (paths.direction, point_maze.slide, point_maze.teleport)
  )
  junctions = jnp.asarray(paths.junctions(maze))

  def new_goals(key: Array) -> Array:
    k1, k2 = jax.random.split(key)
    return point_maze.scatter(k2, jax.random.choice(k1, junctions, (episodes,)))

  start, goal = _stitch_ends(k1, maze, episodes)
  goal = new_goals(k2) if kind == "navigate" else goal

  def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], dict[str, Array]]:
    (position, goal), (k1, k2, k3) = carry, jax.random.split(key, 3)
    action = direction(position, goal) + noise * jax.random.normal(k1, position.shape)
    action = jnp.clip(action, -1.0, 1.0)
    arrived = slide(position, action)
    if kind == "navigate":
      reached = point_maze.reached(arrived, goal)
      goal = jnp.where(reached[:, None], new_goals(k3), goal)
    after = teleport(jax.random.split(k2, episodes), arrived)
    return (after, goal), dict(position=position, action=action)

  found = jax.lax.scan(step, (start, goal), jax.random.split(k3, steps))[1]
  return jax.tree.map(lambda a: a.swapaxes(0, 1), found)


def _stitch_ends(key: Array, maze: mazes.Maze, episodes: int) -> tuple[Array, Array]:
  """Random starts, and goals that are four cells away or, where no cell is, in the start's cell."""
  k1, k2, k3, k4 = jax.random.split(key, 4)
  away = np.stack([paths.distances(maze, tuple(c))[tuple(maze.free.T)] for c in maze.free.tolist()])
  away = np.where((away == _STITCH).any(1, keepdims=True), away == _STITCH, np.eye(len(away)) > 0)
  start = jax.random.randint(k1, (episodes,), 0, len(away))
  goal = jax.random.categorical(k2, jnp.where(jnp.asarray(away)[start], 0.0, -jnp.inf))
  return tuple(
    point_maze.scatter(k, jnp.asarray(maze.free)[n]) for k, n in ((k3, start), (k4, goal))
  )


def _read(path: pathlib.Path, shape: tuple[int, ...]) -> Arrays:
  axes, fix = ("episode", "step", "coordinate"), "delete it to generate the episodes anew"
  try:
    found = npz.read_npz(path)
    names = ("position", "action")
    return {n: inputs.floats(found[n], n, shape, axes=axes, dtype=np.float32) for n in names}
  except (ValueError, KeyError) as error:
    raise ValueError(f"{path}: damaged ({error}); {fix}") from None
