"""Sampling, exporting and importing from a run's folder alone."""

import jax
import numpy as np
import pytest

from configs import forcing_series, imm_digits
from dfim import sample, train
from dfim.checkpoints import checkpoint
from dfim.config.errors import ConfigError
from dfim.data import examples
from dfim.interop import export
from dfim.training import generator

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
  caplog.set_level("INFO")
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
