"""The network's r next to t on every platform, by products emulated as TPUs and GPUs compute them.

`python -m tests.models.test_platforms` prints the table of errors.
"""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.config import resolve, schema
from dfim.models.causal_transformer import CausalTransformer
from dfim.models.dit import DiT
from dfim.models.mlp import MLP
from dfim.models.unet import UNet
from dfim.training import generator
from tests.models import time_path
from tests.models.time_path import CPU, GPU, TPU

pytestmark = pytest.mark.usefixtures("keys_unchecked")

UNSTATED = time_path.Platform(bits=7, default=1, high=1, highest=1)  # a TPU left to its default
TIMES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
NEAR = np.linspace(-1e-3, 1e-3, 8)  # of each
SHAPES = {MLP: (2,), UNet: (4, 4, 3), DiT: (2, 2, 4), CausalTransformer: (1, 2)}
MODES = dict(imm_imagenet256=("S", "B", "L", "full", "best"), imm_fashion=("full", "gpu"))
FOLDER = pathlib.Path(__file__).parents[2] / "configs"
CONFIGS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")
RECIPES = [f"{name}:{mode}" for name in CONFIGS for mode in MODES.get(name, ("full",))]
SLOW = "imm_imagenet256:B imm_imagenet256:L imm_imagenet256:full imm_fashion:gpu".split()


def config_of(recipe):
  name, mode = recipe.split(":")
  return schema.complete(importlib.import_module(f"configs.{name}").get_config(mode))


WITH_R = [r for r in RECIPES if config_of(r).objective.sample_times.get("mapping")]


@functools.cache
def parts(recipe):
  """The network as wide as shipped, of one block, and the loss's arguments."""
  net, loss = generator.parts(config_of(recipe))
  shallow = dict(depth=1, blocks=1, scan=False, flatten=False)
  net = net.clone(**{name: v for name, v in shallow.items() if hasattr(net, name)})
  return net, loss.keywords


@functools.cache
def filled(net):
  """Seeded normal parameters of the size that layers start with, also where they start at 0."""
  shape, rng = SHAPES[type(net)], np.random.default_rng(1)
  x, u = jnp.zeros((1, *shape)), jnp.ones((1,) * (1 + len(shape)))
  cond = dict(label=jnp.zeros(1, int)) if net.num_classes else None
  small = lambda p: isinstance(net, DiT) or p.ndim == 1
  size = lambda p: 0.02 if small(p) else np.prod(p.shape[:-1]) ** -0.5
  fill = lambda p: np.float32(size(p)) * rng.standard_normal(p.shape, np.float32)
  return jax.tree.map(fill, jax.eval_shape(net.init, jax.random.key(0), x, u, u, cond))


def differences(net, later, earlier, platform, dtype=np.float32):
  """What meets x at (s, t) `later` less what does `earlier`: float64 `[rows, columns, features]`.

  Each of the four times is float32 `[rows, columns]`, computed with in `dtype`.
  """
  s, t = (np.stack(pair).astype(dtype) for pair in zip(later, earlier, strict=True))
  x = np.zeros((t.size, *SHAPES[type(net)]), dtype)
  s, t = (u.reshape(-1, *(1,) * (x.ndim - 1)) for u in (s, t))
  cond = dict(label=np.zeros(len(x), int)) if net.num_classes else None
  marks = time_path.PARAMS, time_path.X, *[time_path.TIME] * 3
  run = lambda *args: time_path.frontier(net.apply, marks, *args, platform=platform)
  with jax.enable_x64(dtype == np.float64):
    params = jax.tree.map(lambda p: p.astype(dtype), filled(net))
    arrays = jax.jit(run)(params, x, s, t, cond)
  each = (np.asarray(a, np.float64).reshape(2, *later[1].shape, -1) for a in arrays)
  return np.concatenate([a[0] - a[1] for a in each], axis=-1)


def errors(net, later, earlier, *platforms):
  """`[rows]` of each platform: the error of the differences relative to their size, in float64."""
  exact = differences(net, later, earlier, CPU, np.float64)
  norm = lambda a: np.linalg.norm(a, axis=(1, 2))
  found = (differences(net, later, earlier, platform) for platform in platforms)
  return [norm(a - exact) / norm(exact) for a in found]


def steps_to_r(recipe, t, s):
  """(s, t) and (s, r), in float32, with the recipe's own r."""
  loss, t, s = parts(recipe)[1], np.float32(t), np.full_like(t, s, np.float32)
  given = loss["sample_times"].keywords
  ends = dict(t_max=given["t_max"], t_min=given["t_min"])
  return (s, t), (s, np.asarray(given["mapping"](loss["f"].path, s, t, **ends)))


@functools.cache
def errors_of(recipe, *platforms):
  """`[len(TIMES)]` of each platform."""
  later, earlier = steps_to_r(recipe, np.add.outer(TIMES, NEAR), 0.25)
  assert np.all((later[0] < earlier[1]) & (earlier[1] < later[1]))
  return errors(parts(recipe)[0], later, earlier, *platforms)


@pytest.mark.parametrize(
  "recipe", [pytest.param(r, marks=[pytest.mark.slow] * (r in SLOW)) for r in WITH_R]
)
def test_every_platform_tells_r_from_t_as_float32_does(recipe):
  tpu, gpu, cpu, unstated = errors_of(recipe, TPU, GPU, CPU, UNSTATED)
  assert max(tpu.max(), gpu.max(), cpu.max()) < 0.01
  assert np.all(unstated > 100 * cpu) or unstated.max() > 0.1, "the emulation can fail"
  if not isinstance(parts(recipe)[0], CausalTransformer):
    assert np.all(np.maximum(tpu, gpu) <= 1.1 * cpu)


def smallest_steps(recipe):
  """The smallest steps of training to r, or without r those of the data's levels or a sampler."""
  loss, grid = parts(recipe)[1], config_of(recipe).sampler.grid
  if recipe in WITH_R:
    given = loss["sample_times"].keywords
    t = np.linspace(given["t_min"], given["t_max"], 10_001)
    later, earlier = steps_to_r(recipe, t, given["t_min"])
    r_above_s = earlier[1] > earlier[0]  # of r = s the frozen model gives x_r itself
    first = np.argsort(np.where(r_above_s, later[1] - earlier[1], np.inf))[:8]
    return [[u[first][:, None] for u in pair] for pair in (later, earlier)]
  steps = grid.get("levels") or max(config_of(recipe).sampler.steps)
  u = np.float32(resolve.resolve(grid, "grid")(steps=steps, path=loss["f"].path))[:, None]
  return (u[:-1], u[:-1]), (u[1:], u[1:])


@pytest.mark.parametrize("name", ["forcing_walk", "forcing_series", "moment_forcing_walk"])
def test_networks_of_tokens_take_the_fewest_passes_that_keep_the_smallest_step(name):
  net, steps = parts(f"{name}:full")[0], smallest_steps(f"{name}:full")
  worst = lambda net: np.max(errors(net, *steps, TPU, GPU))
  assert worst(net) < 0.01
  assert net.time_precision == "default" or worst(net.clone(time_precision="default")) > 0.01


def table():
  """Lines of a Markdown table: errors in per cent for each recipe and time."""
  yield "| recipe | t | TPU, precision not stated | TPU | GPU | float32 on a CPU |"
  yield "|---|---|---|---|---|---|"
  for recipe in WITH_R:
    for t, *row in zip(TIMES, *errors_of(recipe, UNSTATED, TPU, GPU, CPU), strict=True):
      cells = (f"{float(f'{100 * error:.2g}'):g} %" for error in row)
      yield f"| {recipe} | {t} | {' | '.join(cells)} |"


if __name__ == "__main__":
  print(*table(), sep="\n")
