"""A run's weights leave as a folder and come back as a run that draws the same samples."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imm_digits
from dfim import evaluate, sample, train
from dfim.checkpoints import checkpoint, workdir
from dfim.config import schema
from dfim.config.errors import ConfigError, FieldError
from dfim.interop import export, names, safetensors
from dfim.models.unet import UNet
from dfim.training import experiment as experiment_lib, nonfinite
from tests.data.helpers import assert_equal

ONE = jax.devices()[:1]


def config_of(**fields):
  """A short run, with fields set: `__` for a dot."""
  config = imm_digits.get_config("smoke")
  config.steps = config.checkpoint_every = 2
  config.evaluators = {}
  config.sampler.steps, config.sampler.count, config.sampler.chunk = (1,), 8, 8
  config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
  return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of two steps, and what was exported from it."""
  folder = tmp_path_factory.mktemp("released")
  state = train.train(config_of(), str(folder / "run"), devices=ONE)
  out = export.export_run(config_of(), str(folder / "run"), str(folder / "out"), devices=ONE)
  return folder / "run", out, experiment_lib.build(config_of(), devices=ONE).ema_params(state)


def test_export_and_load_are_bit_exact_and_config_json_describes_network_and_sampler(trained):
  _, out, averaged = trained
  net, f, params = export.load(out)
  assert_equal(params, jax.device_get(averaged))
  experiment = experiment_lib.build(config_of(), devices=ONE)
  assert (net, f) == (experiment.net, experiment.f)
  found = json.loads((trained[1] / "config.json").read_text())
  assert found["model"]["name"] == "models.mlp.MLP" and found["model"]["time_scale"] == 1000.0
  assert (found["t_max"], found["t_min"]) == (0.994, 0.006)
  assert found["sampler"]["grid"]["name"] == "core.grids.uniform"
  assert found["inputs"]["x"] == {"shape": [8, 8, 1], "dtype": "float32"}
  assert (found["step"], found["ema"]) == (2, "0.998")


def test_an_imported_run_draws_the_same_samples_and_trains_on(trained, tmp_path):
  run, out, averaged = trained
  new = str(tmp_path / "new")
  state = export.import_weights(config_of(), new, str(out), devices=ONE)
  for tree in (state.params, *state.ema.values()):
    assert_equal(jax.device_get(tree), jax.device_get(averaged))
  assert checkpoint.steps(new) == [0]
  a, b = (
    np.load(sample.sample(config_of(), where, devices=ONE).with_suffix(".npz"))["steps_1"]
    for where in (str(run), new)
  )
  np.testing.assert_array_equal(a, b)
  assert int(train.train(config_of(), new, devices=ONE).step) == 2


def test_a_file_alone_is_imported_under_a_prefix(trained, tmp_path):
  arrays = {f"ema/{name}": a for name, a in names.to_arrays(trained[2]).items()}
  np.savez(tmp_path / "net.npz", **arrays)
  new = str(tmp_path / "new")
  export.import_weights(config_of(), new, str(tmp_path / "net.npz"), prefix="ema/", devices=ONE)
  assert checkpoint.steps(new) == [0]


def test_stacked_and_numbered_blocks_are_the_same_export(tmp_path):
  config = config_of()
  fields = dict(channels=4, multipliers=(1,), blocks=2, attention_resolutions=())
  config.model = dict(name="models.unet.UNet", **fields, num_classes=10, scan=True)
  net, x, t = UNet(**fields, num_classes=10), jnp.zeros((1, 8, 8, 1)), jnp.ones((1, 1, 1, 1))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, t)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes)
  np.savez(tmp_path / "net.npz", **names.to_arrays(params))
  stacked, out, numbered = (str(tmp_path / name) for name in ("stacked", "out", "numbered"))
  state = export.import_weights(config, stacked, str(tmp_path / "net.npz"), devices=ONE)
  assert "enc_8x8_blocks0to1" in state.params["params"]
  export.export_run(config, stacked, out, devices=ONE)
  config.model.scan = False
  assert_equal(export.import_weights(config, numbered, out, devices=ONE).params, params)
  with pytest.raises(FieldError, match="holds a run with model.scan=True") as error:
    workdir.check(stacked, schema.complete(config))
  assert error.value.field == "workdir"


def refused(message):
  return pytest.raises(ConfigError, match=message)


def test_nothing_is_written_over(trained):
  run, out, _ = trained
  before = {p: p.stat().st_mtime_ns for p in [*run.rglob("*"), *out.rglob("*")]}
  with refused("^out="):
    export.export_run(config_of(), str(run), str(out), devices=ONE)
  with refused("^workdir="):
    export.import_weights(config_of(), str(run), str(out), devices=ONE)
  config = config_of(data__split="test")
  config.evaluators = imm_digits.get_config("smoke").evaluators
  with refused("data.split='train'"):
    evaluate.evaluate(config, str(run), devices=ONE)
  assert {p: p.stat().st_mtime_ns for p in [*run.rglob("*"), *out.rglob("*")]} == before


@pytest.mark.parametrize(
  "change, named",
  [
    (dict(model__width=16), "model.width=16 .* 32 in"),
    (dict(objective__f__sigma_data=0.4), "objective.f.sigma_data=0.4 .* 0.5 in"),
  ],
)
def test_weights_of_another_network_are_refused_before_anything_is_written(
  change, named, trained, tmp_path
):
  with refused(named):
    export.import_weights(config_of(**change), str(tmp_path / "new"), str(trained[1]), devices=ONE)
  assert not (tmp_path / "new").exists()


def test_missing_arguments_and_files_are_refused(trained, tmp_path):
  new = str(tmp_path / "new")
  with refused("^weights"):
    export.import_weights(config_of(), new, str(tmp_path), devices=ONE)
  with refused("^out: missing"):
    export.export_run(config_of(), str(trained[0]), None, devices=ONE)
  with refused("^workdir=.*: no checkpoint"):
    export.export_run(config_of(), new, str(tmp_path / "out"), devices=ONE)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["os.system", "models.os.system", "core.kernels.laplace"])
@pytest.mark.parametrize("field", ["model", "f"])
def test_a_config_json_of_others_names_networks_and_paths_alone(name, field, tmp_path):
  described = dict(
    model=dict(name="models.mlp.MLP"),
    f=dict(name="core.parameterization.EulerFlow", path=dict(name="core.interpolants.Cosine")),
    inputs=dict(x=dict(shape=[2], dtype="float32")),
  )
  described[field] = dict(name=name, command=f"touch {tmp_path}/trap")
  (tmp_path / "config.json").write_text(json.dumps(described))
  safetensors.write(tmp_path / "model.safetensors", {})
  with pytest.raises(ConfigError) as error:
    export.load(tmp_path)
  assert "\n" not in str(error.value) and not (tmp_path / "trap").exists()


@pytest.mark.parametrize("decays", [(0.99, 0.5), (0.5, 0.99)], ids=str)
def test_the_average_of_the_first_decay_is_drawn_scored_and_exported(decays, tmp_path):
  """Its name need not be the first in the order of strings, in which jit returns a dict."""
  config = config_of()
  config.ema = decays
  state = train.train(config, str(tmp_path / "run"), devices=ONE)
  wanted = jax.device_get(state.ema[str(decays[0])])
  out = export.export_run(config, str(tmp_path / "run"), str(tmp_path / "out"), devices=ONE)
  assert_equal(export.load(out)[2], wanted)
  assert json.loads((out / "config.json").read_text())["ema"] == str(decays[0])
  experiment = experiment_lib.build(config, devices=ONE)
  drawn = np.load(sample.sample(config, str(tmp_path / "run"), devices=ONE).with_suffix(".npz"))
  np.testing.assert_array_equal(drawn["steps_1"], sample.make_draw(experiment)(wanted, 8, 1))


def test_weights_that_are_not_finite_are_not_exported(trained, tmp_path, monkeypatch):
  run, _, _ = trained
  restore = checkpoint.restore

  def damaged(*args, **kwargs):
    state = restore(*args, **kwargs)
    return state.replace(ema=jax.tree.map(lambda a: a * np.nan, state.ema))

  monkeypatch.setattr(checkpoint, "restore", damaged)
  with pytest.raises(nonfinite.NonFiniteError, match="not finite"):
    export.export_run(config_of(), str(run), str(tmp_path / "out"), devices=ONE)
  assert not (tmp_path / "out").exists()
