"""Every config runs in its smoke mode, end to end, and says what it is."""

import importlib
import json
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from dfim import evaluate
from dfim import experiment
from dfim import sample
from dfim import train

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")


@pytest.fixture(params=NAMES)
def module(request):
  return importlib.import_module(f"configs.{request.param}")


@pytest.fixture
def config(module, tmp_path):
  config = module.get_config("smoke")
  if config.data.name == "data.images.tfds":  # stand-in for a set that cannot travel
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", x=images)
    config.data = dict(name="data.images.npz", path=str(tmp_path / "images.npz"))
  return config


def test_says_its_command_time_and_score(module):
  name = module.__name__.removeprefix("configs.")
  assert f"python -m dfim.main --config=configs/{name}.py" in module.__doc__
  assert "Time:" in module.__doc__ and "Score:" in module.__doc__


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
      assert list(first) == list(again) == list(config.evaluators)
      before, after = evaluate.flat(first), evaluate.flat(again)
      np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-4, atol=1e-6)
    drawn = np.load(sample.sample(config, str(workdir), **one).with_suffix(".npz"))
    for steps in config.sampler.steps:
      assert drawn[f"steps_{steps}"].shape[0] == config.sampler.count


def test_the_full_config_builds(module):
  config = module.get_config()
  if config.data.name != "data.images.tfds":
    experiment.build(config, devices=jax.devices()[:1])
