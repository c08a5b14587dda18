"""One run on every layout: one device, many, several processes, whole states and cut ones."""

import sys

import jax
import numpy as np
from PIL import Image
import pytest

from dfim import sample, train
from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib
from tests import trust
from tests.trust import config as config_lib, one_step

pytestmark = pytest.mark.usefixtures("keys_unchecked")
TOLERANCE = dict(float64=dict(rtol=1e-9, atol=1e-9), float32=dict(rtol=1e-4, atol=1e-4))
LAYOUTS = {  # processes, devices of each, fsdp
  "8 devices": (1, 8, 1),
  "4 x 2 FSDP": (1, 8, 2),
  "8 FSDP": (1, 8, -1),
  "16 FSDP": (1, 16, -1),
  "2 processes": (2, 1, 1),
  "2 processes FSDP": (2, 2, 2),
  "4 processes": (4, 1, 1),
}


def layouts(quick):
  """Every layout; all but those of `quick` in `make trust` alone."""
  slow = lambda name: () if name in quick else pytest.mark.slow
  return pytest.mark.parametrize("layout", [pytest.param(n, marks=slow(n)) for n in LAYOUTS])


def here(what, dtype, devices, fsdp=1):
  with jax.enable_x64(dtype == "float64"):
    config = one_step.config_of(what, fsdp)
    return one_step.gradient_of(experiment_lib.build(config, devices=devices), dtype)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["digits", pytest.param("walk", marks=pytest.mark.slow)])
@layouts(["4 x 2 FSDP"])
def test_one_step(layout, what, dtype, tmp_path, record_property):
  processes, devices, fsdp = LAYOUTS[layout]
  one = here(what, dtype, jax.devices()[:1])
  if devices <= len(jax.devices()) and processes == 1:
    other = here(what, dtype, jax.devices(), fsdp)
  else:
    out = tmp_path / "out.npz"
    command = [sys.executable, "-m", "tests.trust.one_step", f"--what={what}", f"--dtype={dtype}"]
    command += [f"--fsdp={fsdp}", f"--out={out}"]
    trust.finish(trust.start_all(processes, command, devices=devices))
    other = dict(np.load(out))
  assert set(one) == set(other)
  worst = max(float(np.max(np.abs(one[name] - other[name]))) for name in one)
  record_property("worst difference", worst)
  for name in one if dtype == "float64" else ["loss"]:
    np.testing.assert_allclose(other[name], one[name], **TOLERANCE[dtype], err_msg=name)


def drawn(workdir, processes, devices, fsdp, method):
  """What `--mode=sample` writes: the arrays, and the picture."""
  changes = {"fsdp": fsdp, "sampler.count": 64}
  changes |= {"sampler.step.name": method} if method else {}
  before = set((workdir / "samples").glob("*.npz"))
  if devices <= len(jax.devices()) and processes == 1:
    config = config_lib.get_config()
    config.update_from_flattened_dict(changes)
    sample.sample(config, str(workdir), devices=jax.devices()[:devices])
  else:
    flags = [f"--config.{field}={value}" for field, value in changes.items()]
    command = trust.trainer(workdir, "--mode=sample", *flags)
    trust.finish(trust.start_all(processes, command, devices=devices))
  (path,) = set((workdir / "samples").glob("*.npz")) - before
  return np.load(path)["steps_1"], np.asarray(Image.open(path.with_suffix(".png")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("trained")
  config = config_lib.get_config()
  config.steps = 30
  train.train(config, str(workdir), devices=jax.devices()[:1])
  return workdir


@layouts(["8 devices"])
def test_samples(layout, trained):
  one = drawn(trained, 1, 1, 1, None)
  other = drawn(trained, *LAYOUTS[layout], None)
  apart = np.abs(one[1].astype(int) - other[1].astype(int))
  assert apart.max() <= 1 and np.mean(apart > 0) < 1e-3
  both = (1, 1, 1), LAYOUTS[layout]
  start = [drawn(trained, *where, "tests.trust.config.noise")[0] for where in both]
  np.testing.assert_array_equal(*start)
  assert np.std(start[0]) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("then", ["1 device", "2 processes"])
def test_saved_on_eight_devices_and_continued(then, tmp_path):
  def run(workdir, steps, devices, fsdp):
    config = config_lib.get_config()
    config.update(steps=steps, fsdp=fsdp, checkpoint_every=4)
    config.model.width = 256
    return train.train(config, str(workdir), devices=devices)

  unbroken = run(tmp_path / "one", 8, jax.devices()[:1], 1)
  run(tmp_path / "run", 4, jax.devices(), 4)
  if then == "1 device":
    continued = run(tmp_path / "run", 8, jax.devices()[:1], 1)
  else:
    flags = "--config.steps=8", "--config.checkpoint_every=4", "--config.model.width=256"
    trust.finish(trust.start_all(2, trust.trainer(tmp_path / "run", *flags)))
    config = config_lib.get_config()
    config.model.width = 256
    experiment = experiment_lib.build(config, devices=jax.devices()[:1])
    continued = checkpoint.restore(str(tmp_path / "run"), experiment.abstract_state())
  assert int(continued.step) == 8
  for a, b in zip(*map(jax.tree.leaves, (unbroken.params, continued.params)), strict=True):
    # Adam's first steps are as long as the learning rate, 1e-3, whatever the gradient.
    np.testing.assert_allclose(a, b, atol=4e-3)
