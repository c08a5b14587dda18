"""Sampling, exporting and importing from a run's folder alone."""

import jax
import numpy as np
import pytest

from configs import forcing_series, imm_cifar, imm_digits, imm_imagenet256
from dfim import sample, train
from dfim.checkpoints import checkpoint
from dfim.config import schema
from dfim.config.errors import ConfigError, FieldError
from dfim.data import examples
from dfim.interop import export
from dfim.training import experiment, generator
from tests.test_configs import with_stand_in

ONE = jax.devices()[:1]


def images(path):
  """The config of a short run on an .npz file at `path`."""
  config = imm_digits.get_config("smoke")
  config.data = dict(name="data.images.sets.npz", path=str(path))
  config.steps = config.checkpoint_every = 2
  config.evaluators, config.model.num_classes = {}, 3
  config.sampler.update(steps=(1,), count=6, chunk=6)
  return config


@pytest.fixture(scope="module")
def without_data(tmp_path_factory):
  """A run of two steps whose data are gone, and the samples that it drew."""
  folder = tmp_path_factory.mktemp("gone")
  rng, path, run = np.random.default_rng(0), folder / "images.npz", folder / "run"
  pixels = rng.integers(0, 256, (64, 8, 8, 1), np.uint8)
  np.savez(path, x=pixels, y=rng.choice([0, 2], 64))
  train.train(images(path), str(run), devices=ONE)
  path.unlink()
  return images(path), run


def test_samples_exports_and_imports_need_no_data(without_data, tmp_path):
  config, run = without_data
  drawn = np.load(sample.sample(config, str(run), devices=ONE).with_suffix(".npz"))["steps_1"]
  draw, params = sample.load(str(run), devices=ONE)
  np.testing.assert_array_equal(draw(params, 6, 1), drawn)
  out, new = export.export_run(config, str(run), str(tmp_path / "out"), devices=ONE), tmp_path / "n"
  export.import_weights(config, str(new), str(out), devices=ONE)
  again, same = sample.load(str(new), devices=ONE)
  np.testing.assert_array_equal(again(same, 6, 1), drawn)


def test_the_loss_is_not_traced_and_the_optimizer_not_read(without_data, monkeypatch):
  config, run = without_data
  templates, load = [], checkpoint.ocp.load
  record = lambda path, template, **how: templates.append(template) or load(path, template, **how)
  monkeypatch.setattr(checkpoint.ocp, "load", record)
  monkeypatch.setattr("dfim.objectives.moment_matching.mmd", None)
  sample.sample(config, str(run), devices=ONE)
  assert set(templates[0]) == {"step", "ema", "skipped"} and set(templates[0]["ema"]) == {"0.998"}


def test_the_folder_knows_the_classes_that_the_data_have(without_data):
  config, run = without_data
  assert generator.build(config, str(run), devices=ONE).examples.labels == (0, 2)


def test_a_run_without_examples_opens_its_data_with_a_line(without_data, caplog):
  config, run = without_data
  caplog.set_level("INFO", logger="absl")  # whatever other tests have set
  kept = (run / examples.FILE).rename(run / "kept")
  try:
    with pytest.raises(ConfigError, match="images.npz"):
      generator.build(config, str(run), devices=ONE)
  finally:
    kept.rename(run / examples.FILE)
  assert "has no examples.npz; opening the data" in caplog.text


def test_damaged_examples_are_refused_in_one_line(without_data, tmp_path):
  (tmp_path / examples.FILE).write_bytes(b"PK")
  with pytest.raises(ConfigError, match=examples.FILE) as error:
    generator.build(without_data[0], str(tmp_path), devices=ONE)
  assert "\n" not in str(error.value)


def test_conditions_come_back_as_they_were(tmp_path):
  rng = np.random.default_rng(0)
  cond = dict(
    action=rng.normal(size=(8, 5, 2)).astype(np.float32), label=np.arange(8, dtype=np.int32)
  )
  batch = dict(x=np.zeros((8, 5, 3), np.float32), cond=cond)
  made = examples.of_batch(batch, (0, 1))
  examples.write(tmp_path, made, 3)
  read = examples.read(tmp_path, 8)
  assert (read.batch, read.labels) == (made.batch, made.labels)
  assert set(read.cond) == {"action"}
  np.testing.assert_array_equal(read.cond["action"], cond["action"][:3])


def test_a_sequence_is_drawn_with_the_conditions_of_training(tmp_path):
  config = forcing_series.get_config("smoke")
  config.evaluators, config.steps, config.checkpoint_every = {}, 2, 2
  with jax.debug_key_reuse(False):
    train.train(config, str(tmp_path), devices=ONE)
    path = sample.sample(config, str(tmp_path), devices=ONE)
  drawn = [np.load(p)["steps_2"] for p in (path.with_suffix(".npz"),)]
  assert np.isfinite(drawn).all()
  assert path.read_bytes() == (tmp_path / "samples" / "2.png").read_bytes()


@pytest.mark.parametrize("module", [imm_cifar, imm_imagenet256], ids=lambda m: m.__name__)
def test_the_stated_form_is_that_of_the_data_for_all_that_a_network_reads(module, tmp_path):
  config = module.get_config("smoke")
  built = experiment.build(
    with_stand_in(config.copy_and_resolve_references(), tmp_path), devices=ONE
  )
  stated = generator.stated_examples(schema.complete(config))
  assert stated.batch["x"] == built.batch["x"]
  cond = built.batch["cond"]
  read = {k: a for k, a in cond.items() if k != "label" or config.model.get("num_classes")}
  assert stated.batch["cond"] == read
  assert stated.labels == tuple(range(config.model.get("num_classes", 0)))


def test_an_experiment_with_a_stated_form_opens_no_data():
  config = imm_imagenet256.get_config("smoke")
  config.data.path = "/none"
  examples_of = generator.stated_examples(schema.complete(config))
  built = experiment.build(config, devices=ONE, examples=examples_of)
  assert built.batch["x"].shape == (32, 32, 32, 4)
  with pytest.raises(ConfigError, match="/none"):
    experiment.build(config, devices=ONE)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8), (), 8, (8, 8, 0), (8.0, 8, 1)], ids=str)
def test_data_of_another_shape_than_stated_are_refused(shape):
  config = imm_digits.get_config("smoke")
  config.data.shape = shape
  with pytest.raises(FieldError) as error:
    experiment.build(config, devices=ONE)
  assert error.value.field == "data.shape"


def test_data_of_the_stated_shape_are_the_same_data():
  plain, stated = (imm_digits.get_config("smoke") for _ in range(2))
  stated.data.shape = (8, 8, 1)
  batches = [next(experiment.build(c, devices=ONE).source())["x"] for c in (plain, stated)]
  np.testing.assert_array_equal(*batches)
