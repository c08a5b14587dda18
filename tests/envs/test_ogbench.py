"""The mazes, step by step, against OGBench's PointMaze in MuJoCo (extra `planning`)."""

import jax
import numpy as np
import pytest

from dfim.envs import contacts, mazes, paths, point_maze

ogbench = pytest.importorskip(
  "ogbench", reason="ogbench is absent: pip install 'dfim[planning]' to compare with MuJoCo"
)
NAMES = tuple(mazes.MAZES)
STEPS = 5000  # random contacts a maze


@pytest.fixture(scope="module", params=NAMES)
def world(request):
  """A maze, and OGBench's environment of it."""
  name = f"pointmaze-{request.param}-navigate-v0"
  env = ogbench.make_env_and_datasets(name, env_only=True).unwrapped
  env.reset(options=dict(task_id=1))
  return mazes.named(request.param), env


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def in_contact(maze, rng, count):
  """Positions `[count, 2]` from which a random step touches a wall, and the steps' actions."""
  found = []
  while sum(map(len, found)) < count:
    cell = rng.permutation(np.repeat(maze.free, 200, axis=0))
    position = mazes.center(cell) + rng.uniform(-1.35, 1.35, cell.shape)
    action = rng.uniform(-1, 1, cell.shape)
    touches = paths.crosses(maze, *2 * [position + 0.2 * action], contacts.RADIUS)
    found.append(np.concatenate([position, action], -1)[np.asarray(touches)])
  return np.split(np.concatenate(found)[:count], 2, axis=-1)


def test_walls_tasks_and_pads_are_the_packages(world):
  maze, env = world
  np.testing.assert_array_equal(maze.walls, env.maze_map == 1)
  ours = [(*start, *goal) for start, goal in maze.tasks]
  assert ours == [(*task["init_ij"], *task["goal_ij"]) for task in env.task_infos]
  pads = env._teleport_info or dict(teleport_in_ijs=[], teleport_out_ijs=[])
  assert list(maze.pads_in) == pads["teleport_in_ijs"]
  assert list(maze.pads_out) == pads["teleport_out_ijs"]
  for cell in maze.free:
    position = mazes.center(cell)
    assert tuple(position) == env.ij_to_xy(tuple(cell))
    for p in (position, position + 1.99, position - 1.99):
      assert tuple(mazes.cell_of(p)) == env.xy_to_ij(p) == tuple(cell)


def difference(maze, env, rng):
  """The largest of `STEPS` random contacts, in units."""
  start, action = in_contact(maze, rng, STEPS)
  expected = np.array([_mujoco(env, p, a) for p, a in zip(start, action, strict=True)])
  pushed = np.abs(expected - start - 0.2 * action).max(-1)
  assert np.mean(pushed > 1e-3) > 0.95 and pushed.max() > 0.15
  step = jax.jit(jax.vmap(lambda p, a: point_maze.slide(maze, p, a)))
  found = np.abs(np.asarray(step(start, action)) - expected).max()
  print(f"{maze.name}: {STEPS} contacts, pushes up to {pushed.max():.3f}, difference {found:.1e}")
  return found


def test_random_contacts_end_where_mujoco_ends(world, rng, optimized):
  assert difference(*world, rng) < 1e-5  # of positions of up to 60 in float32


def test_random_contacts_in_float64_are_mujocos_to_its_tolerance(world, rng, optimized, float64):
  assert difference(*world, rng) < 1e-8


def test_an_episode_along_walls_is_mujocos(world, rng, float64):
  maze, env = world
  position = np.array(mazes.center(maze.free[0]))
  step = jax.jit(lambda p, a: point_maze.slide(maze, p, a))
  env.set_xy(position)
  contact, heading = 0, rng.normal(size=2)
  for n in range(300):
    heading = rng.normal(size=2) if n % 20 == 0 else heading
    action = np.clip(heading + 0.3 * rng.normal(size=2), -1, 1)
    contact += np.any(np.abs(env.get_xy() + 0.2 * action - _mujoco(env, None, action)) > 1e-9)
    position = step(position, action)
    np.testing.assert_allclose(position, env.get_xy(), atol=1e-6)
  assert contact > 50


def test_success_and_teleports_are_the_packages(world, rng):
  maze, env = world
  ours, jumps = point_maze.PointMaze(maze), 0
  step = jax.jit(ours.step)
  for n in range(3):
    goal = rng.choice(np.array(maze.pads_in or maze.free[5:9]))
    cell = paths.cells(maze, tuple(map(int, maze.free[n])), tuple(map(int, goal)))[-2]
    start, target = mazes.center(cell), mazes.center(goal) + rng.uniform(-1, 1, 2)
    state = ours.place(jax.random.key(n), start[None], target[None])
    state = jax.tree.map(lambda a: a[0], state)
    env.set_xy(start)
    env.set_goal(goal_xy=target)
    jumped = False
    while not (state.done or jumped):
      before, action = env.get_xy(), np.clip(5 * (target - env.get_xy()), -1, 1)
      _, reward, ended, _, info = env.step(action)
      state = step(state, action)
      assert state.success == state.done == ended == bool(reward) == bool(info["success"])
      jumped = np.linalg.norm(env.get_xy() - before) > 1
      assert jumped == (np.linalg.norm(state.position - before) > 1)
    jumps += jumped
    if jumped:
      out = mazes.center(np.array(maze.pads_out)).tolist()
      assert env.get_xy().tolist() in out and state.position.tolist() in out
  assert bool(jumps) == bool(maze.pads_in)


def test_breadth_first_oracle_is_the_packages(world, rng):
  maze, env = world
  for _ in range(40):
    cell, goal = (tuple(map(int, c)) for c in rng.choice(maze.free, 2))
    target, map_ = env.get_oracle_subgoal(*(env.ij_to_xy(c) for c in (cell, goal)))
    np.testing.assert_array_equal(paths.distances(maze, goal), map_)
    assert tuple(mazes.center(np.array(paths.next_cell(maze, cell, goal)))) == tuple(target)
    assert tuple(paths.targets(maze)[cell + goal]) == tuple(target)


def _mujoco(env, position, action):
  """The position after MuJoCo's step alone, without teleports; from where it is by default."""
  if position is not None:
    env.set_xy(position)
  super(type(env), env).step(action)
  return env.get_xy()
