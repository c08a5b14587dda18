"""Episodes in the point mazes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.envs import contacts, mazes, paths, point_maze
from tests.data.helpers import refused

PointMaze = point_maze.PointMaze
TO_PAD = 5 * jnp.array([1.0, 0.0])


@functools.partial(jax.jit, static_argnums=(0, 2))
def expert(env, state, steps):
  """All states `[steps, N]` of the expert without noise."""

  def step(state, _):
    action = jax.vmap(functools.partial(paths.direction, env.maze))(state.position, state.goal)
    state = jax.vmap(env.step)(state, action)
    return state, state

  return jax.lax.scan(step, state, length=steps)[1]


def test_free_motion_is_exact(rng):
  position = mazes.center(mazes.GIANT.free) + rng.uniform(-1, 1, mazes.GIANT.free.shape)
  position = jnp.asarray(position, jnp.float32)
  action = jnp.asarray(rng.uniform(-2, 2, position.shape), jnp.float32)
  slide = jax.vmap(functools.partial(point_maze.slide, mazes.GIANT))
  expected = position + 0.2 * jnp.clip(action, -1, 1)
  np.testing.assert_array_equal(slide(position, action), expected)


def test_no_walk_gets_into_a_wall(key, optimized):
  env = PointMaze(mazes.MEDIUM)

  def walk(state, key):
    k1, k2 = jax.random.split(key)
    heading = jax.random.normal(k1, (64, 2))
    noise = jax.random.normal(k2, (20, 64, 2))
    step = lambda state, e: [jax.vmap(env.step)(state, 2 * heading + e)] * 2
    return jax.lax.scan(lambda *a: tuple(step(*a)), state, noise)

  k1, k2 = jax.random.split(key)
  state = jax.vmap(env.reset)(jax.random.split(k1, 64))
  states = jax.jit(lambda s, k: jax.lax.scan(walk, s, k)[1])(state, jax.random.split(k2, 10))
  position = states.position.reshape(-1, 2)
  crosses = jax.jit(paths.crosses, static_argnums=(0, 3))
  touches = crosses(mazes.MEDIUM, position, position, contacts.RADIUS)
  assert 0.2 < np.mean(touches) < 1
  assert not np.any(crosses(mazes.MEDIUM, position, position, contacts.RADIUS - 0.06))


@pytest.mark.parametrize("maze", [mazes.MEDIUM, mazes.LARGE, mazes.GIANT], ids=lambda m: m.name)
def test_the_expert_solves_the_published_tasks_along_the_shortest_path(key, optimized, maze):
  env = PointMaze(maze, noise=0.7)  # the expert goes to the goal's cell, not to the goal
  state = jax.vmap(env.reset)(jax.random.split(key, 5), jnp.arange(5))
  start, goal = (np.asarray(a) for a in (state.position, state.goal))
  for n, (first, last) in enumerate(maze.tasks):
    assert np.abs(start[n] - mazes.center(np.array(first))).max() < 1
    assert np.abs(goal[n] - mazes.center(np.array(last))).max() < 1
  end = jax.tree.map(lambda a: a[-1], expert(env, state, 1000))
  assert end.success.all() and end.done.all()
  optimal = paths.steps(maze, start, goal)
  assert np.all(end.steps < 1.02 * optimal + 5) and np.all(end.steps > 0.7 * optimal)


def test_an_episode_ends_at_its_goal_or_its_limit_and_stays(key):
  env = PointMaze(mazes.MEDIUM, limit=7)
  state = env.place(key, [[0, 0], [0, 0], [0, 0]], [[1.9, 0], [0, 1.0], [4, 4]])
  right = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
  step, seen = jax.jit(jax.vmap(env.step)), []
  for _ in range(9):
    state = step(state, right)
    seen.append(state)
  steps = np.array([s.steps for s in seen])
  assert steps[-1].tolist() == [5, 1, 7]  # 0.9 away after five steps; at once; at the limit
  assert state.success.tolist() == [True, True, False] and state.done.all()
  np.testing.assert_allclose(state.position, [[1.0, 0], [0, 0.2], [1.4, 0]], atol=1e-6)


def test_a_pad_teleports_to_random_pads_after_success_is_judged(key, optimized):
  env = PointMaze(mazes.TELEPORT)
  pad = mazes.center(np.array(env.maze.pads_in[0]))
  start, goal = np.tile(pad - [0, 1.6], (300, 1)), np.tile(pad, (300, 1))
  goal[150:] -= [0, 4]
  state = jax.vmap(env.step)(env.place(key, start, goal), jnp.tile(jnp.array([0, 1.0]), (300, 1)))
  out = mazes.center(np.array(env.maze.pads_out))
  which = (np.asarray(state.position)[:, None] == out).all(-1)
  assert (which.sum(1) == 1).all() and (which.sum(0) > 70).all()
  assert not state.success.any()
  reaching = env.place(jax.random.key(1), pad[None] - [0, 1.1], pad[None])
  assert jax.vmap(env.step)(reaching, jnp.array([[0, 1.0]])).success.all()


def test_resets_draw_all_tasks_or_those_given(key, optimized):
  tasks = paths.random_tasks(mazes.LARGE, 3, seed=0)
  env = PointMaze(mazes.LARGE, tasks, noise=0.0)
  state = jax.vmap(env.reset)(jax.random.split(key, 50))
  starts = {tuple(cell) for cell in mazes.cell_of(np.asarray(state.position)).tolist()}
  assert starts == {start for start, _ in tasks}
  one = env.reset(jax.random.key(1), task=2)
  np.testing.assert_array_equal(one.goal, mazes.center(np.array(tasks[2][1])))


def test_walls_are_refused_as_start_or_goal(key):
  with refused("tasks[0].goal", "(2, 2)", "maze large"):
    PointMaze(mazes.LARGE, tasks=(((1, 1), (2, 2)),))
  env = PointMaze(mazes.LARGE)
  with refused("start", "cell (0, 1)", "maze large"):
    env.place(key, [[0, -4]], [[0, 0]])
  with refused("goal", "outside", "maze large"):
    env.place(key, [[0, 0]], [[0, 99]])
  with refused("limit=0"):
    PointMaze(mazes.LARGE, limit=0)
