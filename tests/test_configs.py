"""Every config runs in its smoke mode, end to end, and has its command in its docstring."""

import importlib
import json
import math
import pathlib

from flax.traverse_util import flatten_dict
import jax
import numpy as np
from PIL import Image
import pytest

from configs import (
  flow_digits,
  flow_fashion,
  imm_cifar,
  imm_fashion,
  imm_imagenet256,
  moment_forcing_walk,
)
from dfim import evaluate, sample, train
from dfim.data.images import latents
from dfim.training import experiment
from tests.data.helpers import idx_bytes

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")
SLOW = set(NAMES) - {"imm_toy"}  # other tests run these parts too


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def module(request):
  return importlib.import_module(f"configs.{request.param}")


@pytest.fixture
def config(module, tmp_path):
  return with_stand_in(module.get_config("smoke"), tmp_path)


def with_stand_in(config, path):
  """The config, reading noise that is written to `path` in place of data that cannot travel."""
  rng = np.random.default_rng(0)
  pixels, labels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), np.arange(64) % 10
  if config.data.name in ("data.images.sets.tfds", "data.images.cifar.cifar10"):
    np.savez(path / "images.npz", x=pixels, y=labels)
    how = {field: config.data[field] for field in ("flip", "augment")}
    config.data = dict(name="data.images.sets.npz", path=str(path / "images.npz"), **how)
  elif config.data.name == "data.images.idx.idx":
    for channel, prefix in enumerate(("train", "t10k")):
      images = pixels[:, :28, :28, channel]
      (path / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
      (path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    config.data.path = str(path)
  elif config.data.name == "data.images.latents.latents":
    for name in ("mean", "std"):
      np.save(path / f"{name}.npy", np.abs(rng.standard_normal((64, 32, 32, 4), np.float32)))
    np.save(path / "label.npy", labels)
    config.data.path = str(path)
  return config


@pytest.mark.parametrize("name", NAMES)
def test_smoke_has_the_fields_of_the_full_recipe(name):
  get_config = importlib.import_module(f"configs.{name}").get_config
  full, smoke = (flatten_dict(get_config(mode).to_dict()) for mode in ("full", "smoke"))
  assert full.keys() == smoke.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_follows_training_unless_set(name):
  config = importlib.import_module(f"configs.{name}").get_config()
  pairs = [(config.objective.sample_times, config.sampler.grid, end) for end in ("t_max", "t_min")]
  rollout = config.sampler.get("rollout") or {}
  pairs += [(config.model, rollout, "window")]
  pairs = [pair for pair in pairs if pair[2] in pair[1]]
  for leader, follower, field in pairs:
    leader[field] += 1
    assert follower[field] == leader[field]
    follower[field] += 1
    assert follower[field] == leader[field] + 1


def test_trains_samples_and_scores(config, tmp_path):
  workdir, one = tmp_path / "run", dict(devices=jax.devices()[:1])
  with jax.debug_key_reuse(False):
    state = train.train(config, str(workdir), **one)
    assert int(state.step) == config.steps and int(state.skipped) == 0
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(jax.device_get(state)))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == config.steps
    assert any("loss" in line for line in lines)
    assert Image.open(workdir / f"samples/{config.steps}.png").size[0] > 100
    if config.get("evaluators"):
      first = json.loads((workdir / f"eval/{config.steps}.json").read_text())
      again = evaluate.evaluate(config, str(workdir), **one)
      assert json.loads((workdir / f"eval/{config.steps}.json").read_text()) == first
      assert (workdir / f"eval/{config.steps}_1.json").exists()
      assert list(first) == list(again) == list(config.evaluators)
      before, after = evaluate.flat(first), evaluate.flat(again)
      np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-4, atol=1e-6)
    drawn = np.load(sample.sample(config, str(workdir), **one).with_suffix(".npz"))
    for steps in config.sampler.steps:
      assert drawn[f"steps_{steps}"].shape[0] == config.sampler.count


def test_samples_of_imagenet_leave_as_raw_latents(tmp_path):
  config = with_stand_in(imm_imagenet256.get_config("smoke"), tmp_path)
  config.steps, config.sampler.steps = 1, (1,)
  workdir, one = str(tmp_path / "run"), dict(devices=jax.devices()[:1])
  with jax.debug_key_reuse(False):
    train.train(config, workdir, **one)
    written = np.load(sample.sample(config, workdir, **one).with_suffix(".npz"))["steps_1"]
    plain = config.copy_and_resolve_references()
    plain.sampler.decode = None
    x = np.load(sample.sample(plain, workdir, **one).with_suffix(".npz"))["steps_1"]
  np.testing.assert_array_equal(written, latents.to_latents(x))
  assert np.abs(written).max() > 3 * np.abs(x).max()


def test_the_full_config_builds(module, tmp_path):
  config = with_stand_in(module.get_config(), tmp_path)
  experiment.build(config, devices=jax.devices()[:1])


@pytest.mark.parametrize(
  "module, mode, millions",  # of parameters, table 5
  [
    (imm_cifar, "full", 55),
    (imm_imagenet256, "S", 33),
    (imm_imagenet256, "B", 130),
    (imm_imagenet256, "L", 458),
    (imm_imagenet256, "best", 675),
  ],
)
def test_the_papers_networks_have_its_sizes(module, mode, millions, tmp_path):
  config = with_stand_in(module.get_config(mode), tmp_path)
  config.batch_size = 4
  built = experiment.build(config, devices=jax.devices()[:1])
  count = sum(math.prod(a.shape) for a in jax.tree.leaves(built.shapes.params))
  assert abs(count / 1e6 / millions - 1) < 0.02


def test_the_gpu_modes_build(tmp_path):
  for module in imm_fashion, flow_fashion:
    config = with_stand_in(module.get_config("gpu"), tmp_path)
    assert experiment.build(config, devices=jax.devices()[:1]).batch["x"].shape[1:] == (32, 32, 1)


@pytest.mark.parametrize(
  "module, mode", [(flow_digits, "self_distillation"), (moment_forcing_walk, "energy_score")]
)
def test_the_modes_of_other_objectives_build_and_sample_in_their_ends(module, mode):
  config = module.get_config(mode)
  assert config.objective.name == f"objectives.{mode}.loss"
  times, grid = config.objective.sample_times, config.sampler.grid
  assert (grid.t_max, grid.t_min) == (times.t_max, times.t_min) == (1.0, 0.0)
  experiment.build(config, devices=jax.devices()[:1])


SHARED = dict(  # IMM, table 5, in all columns
  batch_size=4096,
  ema=(0.9999,),
  model=dict(time_scale=1000.0),
  optimizer=dict(learning_rate=1e-4, b1=0.9, b2=0.999, eps=1e-8),
  sampler=dict(step=dict(name="samplers.jump.Pushforward")),
)
OBJECTIVE = dict(
  f=dict(path=dict(name="core.interpolants.FlowMatching"), sigma_data=0.5),
  group_size=4,
  kernel=dict(name="core.kernels.laplace"),
  sample_times=dict(mapping=dict(name="core.mappings.eta_decrement"), t_max=0.994),
)
CIFAR = dict(
  steps=400_000,
  data=dict(flip=True, augment=dict(rate=0.12)),
  model=dict(augment_dim=9, dropout=0.2),
  objective=dict(
    f=dict(name="core.parameterization.SimpleEDM"),
    sample_times=dict(mapping=dict(k=15.0), t_min=0.006),
    weight=dict(b=5.0),
  ),
  optimizer=dict(name="optax.radam"),
  sampler=dict(grid=dict(etas=(1.4,)), steps=(2,)),
)
XL = dict(
  steps=1_200_000,
  model=dict(depth=28, width=1152, heads=16, patch=2),
  objective=dict(
    drop_rate=0.1,
    f=dict(name="core.parameterization.EulerFlow"),
    sample_times=dict(mapping=dict(k=12.0), t_min=0.0),
    weight=dict(b=4.0),
  ),
  optimizer=dict(name="optax.adamw", weight_decay=0.0),
  sampler=dict(grid=dict(name="core.grids.uniform"), guidance=1.5),
)


@pytest.mark.parametrize(
  "module, mode, column, second_time, min_gap, a",
  [
    (imm_cifar, "full", CIFAR, "s", None, 1.0),
    (imm_imagenet256, "full", XL, "s", 0.0, 1.0),
    (imm_imagenet256, "best", XL, "t-s", 1e-4, 2.0),
  ],
)
def test_a_recipe_is_its_column_of_table_5(module, mode, column, second_time, min_gap, a):
  found = flatten_dict(module.get_config(mode).to_dict())
  for wanted in (SHARED, dict(objective=OBJECTIVE), column):
    for field, value in flatten_dict(wanted).items():
      assert found[field] == value, field
  assert found["model", "second_time"] == second_time and found["objective", "weight", "a"] == a
  assert found.get(("objective", "sample_times", "mapping", "min_gap")) == min_gap
