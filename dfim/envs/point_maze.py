"""OGBench's PointMaze as pure functions, without MuJoCo; use `jax.vmap` and `jax.jit` freely.

env = PointMaze(mazes.LARGE)
state = jax.vmap(env.reset)(jax.random.split(key, 50))
state = jax.vmap(env.step)(state, action)
"""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np

from dfim.envs import contacts, mazes
from dfim.io import inputs

Array = jax.Array

SPEED = 0.2  # units a step, in each axis, at an action of 1
TOLERANCE = 1.0  # units from the goal within which it is reached
_PAD = 1.5  # units from an inbound pad's centre within which the point is teleported


@flax.struct.dataclass
class State:
  """An episode: the position is all that is observed."""

  position: Array  # [2]
  goal: Array  # [2]
  key: Array  # of teleports
  steps: Array  # int32, made so far
  success: Array  # bool, whether the goal was reached; it is the reward too
  done: Array  # bool, whether the episode has ended: by success, or by its limit


@dataclasses.dataclass(frozen=True)
class PointMaze:
  """A kinematic point: position += 0.2 * action, then walls push it out (`contacts.push_out`).

  Attributes:
    maze: such as `mazes.LARGE`.
    tasks: pairs of start and goal cells; the five published ones by default.
    limit: steps of an episode.
    noise: start and goal are uniform within so many units of their cells' centres, in each axis.
  """

  maze: mazes.Maze
  tasks: tuple[mazes.Task, ...] | None = None
  limit: int = 1000
  noise: float = 1.0

  def __post_init__(self):
    inputs.whole(self.limit, "limit", low=1)
    inputs.number(self.noise, "noise", low=0)
    for n, task in enumerate(self.tasks or ()):
      for name, cell in zip(("start", "goal"), task, strict=True):
        mazes.check_cell(self.maze, cell, f"tasks[{n}].{name}")

  def reset(self, key: Array, task: Array | int | None = None) -> State:
    """The start of an episode of task number `task`, or of a random one."""
    k1, k2, k3 = jax.random.split(key, 3)
    cells = jnp.asarray(self.tasks or self.maze.tasks)
    task = jax.random.randint(k1, (), 0, len(cells)) if task is None else task
    start, goal = scatter(k2, cells[task], self.noise)
    return _start(k3, start, goal)

  def place(self, key: Array, start: Array, goal: Array) -> State:
    """The starts of episodes `[N]` at given positions `[N, 2]`, outside of jit.

    Raises FieldError where one lies in a wall or outside of the maze.
    """
    start = jnp.asarray(mazes.check_positions(self.maze, start, "start"))
    goal = jnp.asarray(mazes.check_positions(self.maze, goal, "goal"))
    return jax.vmap(_start)(jax.random.split(key, len(start)), start, goal)

  def step(self, state: State, action: Array) -> State:
    """The state after an action `[2]`, clipped to [-1, 1]; an episode that has ended stays.

    Success is judged before teleports, as in OGBench.
    """
    key, of_pads = jax.random.split(state.key)
    arrived, steps = slide(self.maze, state.position, action), state.steps + 1
    success = reached(arrived, state.goal)
    after = dict(
      position=teleport(self.maze, of_pads, arrived),
      steps=steps,
      success=success,
      done=success | (steps >= self.limit),
    )
    unless_done = lambda name, new: jnp.where(state.done, getattr(state, name), new)
    return state.replace(key=key, **{name: unless_done(name, new) for name, new in after.items()})


def scatter(key: Array, cells: Array, noise: float = 1.0) -> Array:
  """Positions `[..., 2]`, uniform within `noise` units of the cells' centres in each axis."""
  return mazes.center(cells) + jax.random.uniform(key, cells.shape, minval=-noise, maxval=noise)


def slide(maze: mazes.Maze, position: Array, action: Array) -> Array:
  """The position `[2]` after an action `[2]`, clipped to [-1, 1], and contacts with walls."""
  moved = position + SPEED * jnp.clip(action, -1.0, 1.0)
  (row, column), offset = mazes.cell_of(moved), moved - mazes.center(mazes.cell_of(moved))
  side = jnp.where(offset < 0, -1, 1)  # of the cell's nearest corner
  x, y = column + side[0], row + side[1]
  walls = jnp.asarray(maze.walls)
  across = jnp.stack([walls[row, x], walls[y, column], walls[y, x]])
  gap = mazes.CELL / 2 - jnp.abs(offset)
  return moved + side * (gap - contacts.push_out(gap, across))


def teleport(maze: mazes.Maze, key: Array, position: Array) -> Array:
  """The centre `[2]` of a random outbound pad where the position `[2]` is on an inbound pad."""
  if not maze.pads_in:
    return position
  distance = jnp.linalg.norm(position[None] - mazes.center(np.array(maze.pads_in)), axis=-1)
  out = jax.random.choice(key, mazes.center(jnp.asarray(maze.pads_out)))
  return jnp.where(jnp.any(distance <= _PAD), out, position)


def reached(position: Array, goal: Array) -> Array:
  """Whether positions `[..., 2]` are within 1.0 of goals `[..., 2]`."""
  return jnp.linalg.norm(position - goal, axis=-1) <= TOLERANCE


def _start(key: Array, start: Array, goal: Array) -> State:
  zero, no = jnp.int32(0), jnp.bool_(False)
  return State(position=start, goal=goal, key=key, steps=zero, success=no, done=no)
