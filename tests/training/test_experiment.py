"""Configs that would train on something else than they say are refused, field and fix named."""

import itertools

import jax
import numpy as np
import pytest

from benchmarks import moment_forcing
from configs import imm_digits, moment_forcing_walk
from dfim import sample
from dfim.config import schedules
from dfim.training import experiment, step as step_lib

TOKEN, TWO_STREAM = (dict(name=f"core.patterns.{name}") for name in ("token", "two_stream"))


def refused(config, message):
  with pytest.raises(experiment.ConfigError, match=message) as said:
    experiment.build(config, devices=jax.devices()[:1])
  assert "\n" not in str(said.value)


PREFIXES = dict(name="core.two_stream.TwoStream", grouping=dict(name="core.grouping.by_prefix"))


@pytest.mark.parametrize(
  "conditioning,pattern,said",
  [(PREFIXES, TOKEN, "is of one stream; set .*=None"), (None, TWO_STREAM, "needs two streams")],
  ids=str,
)
def test_two_streams_and_their_pattern_go_together(conditioning, pattern, said):
  config = moment_forcing_walk.get_config("smoke")
  config.objective.conditioning = conditioning
  config.objective.sample_times.pattern = pattern
  refused(config, f"^objective.conditioning=.*{said}")


@pytest.mark.parametrize("streams,pattern", [(2, TOKEN), (1, TWO_STREAM), (3, TWO_STREAM)], ids=str)
def test_streams_of_other_objectives_and_their_pattern_go_together(streams, pattern):
  config = moment_forcing.forcing(2)("smoke")
  config.objective.streams, config.objective.sample_times.pattern = streams, pattern
  refused(config, f"^objective.streams={streams}: ")


@pytest.mark.parametrize("field", ["grouping", "posterior"])
def test_prefixes_are_compared_after_a_clean_context_alone(field):
  config = moment_forcing_walk.get_config("smoke")
  config.objective.sample_times.pattern.noisy = 0.25
  given = config.objective.conditioning
  config.objective.conditioning = dict(name=given.name, **{field: given[field]})
  refused(config, "^objective.sample_times.pattern.noisy=0.25: .* needs 0.0")
  config.objective.conditioning = dict(name=given.name)
  experiment.build(config, devices=jax.devices()[:1])


@pytest.mark.parametrize("tokens,told", [(6, False), (10, True)])
def test_a_window_shorter_than_the_data_is_told(tokens, told, caplog):
  config = moment_forcing_walk.get_config("smoke")
  config.data = dict(config.data, tokens=tokens)
  config.model.window, config.evaluators = 6, {}
  experiment.build(config, devices=jax.devices()[:1])
  assert ("10 tokens, and model.window=6 is all that one sees" in caplog.text) == told


@pytest.mark.parametrize(
  "accumulate,message",
  [
    (3, "^batch_size=64: not a multiple of objective.group_size x devices x accumulate = .*=60"),
    (0, "^accumulate=0: set it to 1 or more"),
  ],
)
def test_micro_batches_of_broken_groups_are_refused(accumulate, message):
  config = imm_digits.get_config("smoke")
  config.accumulate = accumulate
  refused(config, message)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("reference", [1, 2, 4])
def test_rows_read_and_rows_seen_follow_the_reference_batch(reference, accumulate):
  """Read: batch_size x reference. Seen by the network: batch_size / accumulate, twice a step."""
  config = moment_forcing_walk.get_config("smoke")
  config.accumulate, config.objective.conditioning.reference = accumulate, reference
  built, seen = experiment.build(config, devices=jax.devices()[:1]), []
  assert built.batch["x"].shape[0] == reference * config.batch_size
  assert next(built.batches(0))["x"].shape[0] == reference * config.batch_size

  def apply(params, x, *args, **given):
    seen.append(x.shape)
    return built.apply(params, x, *args, **given)

  gradient = step_lib.make_gradient(apply, built.loss, accumulate=accumulate)
  jax.eval_shape(gradient, built.shapes, built.batch, built.root())
  assert set(seen) == {(config.batch_size // accumulate, 12, 2)}


def test_the_kernel_follows_its_schedule_and_the_conditioning_stays():
  """8 up to a third of the run, then down to 1 at 1/3 + 1/2: a spec hides no schedule."""
  config = moment_forcing_walk.get_config("smoke")
  config.steps = 300
  built = experiment.build(config, devices=jax.devices()[:1])
  at = lambda n: schedules.at_step(built.loss, n).keywords
  widths = [at(n)["kernel"].keywords["bandwidth_multiplier"] for n in (0, 100, 175, 300)]
  np.testing.assert_allclose(widths, [8.0, 8.0, 8.0**0.5, 1.0], rtol=1e-6)
  assert at(100)["conditioning"] is built.loss.keywords["conditioning"]
  assert at(100)["conditioning"].reference == 4


@pytest.mark.parametrize(
  "field,value,message",
  [
    ("objective.weight", dict(name="core.weights.fused_snr"), "^objective.weight=fused_snr"),
    (
      "model",
      dict(name="models.df_transformer.ReleasedTransformer"),
      "^objective.conditioning=.*: ReleasedTransformer has one stream",
    ),
    ("objective.sample_times", dict(name="core.times.sample"), "^objective.sample_times: give it"),
    ("objective.particles", dict(name="core.particles.example"), "particles.example with times"),
  ],
)
def test_what_two_streams_cannot_use_is_refused(field, value, message):
  config = moment_forcing_walk.get_config("smoke")
  moment_forcing.changed(config, {field: value})
  refused(config, message)


def images(tmp_path, size=64, **arrays):
  np.savez(tmp_path / "some.npz", images=np.zeros((size, 8, 8, 1), np.uint8), **arrays)
  config = imm_digits.get_config("smoke")
  config.data = dict(name="data.images.sets.npz", path=str(tmp_path / "some.npz"))
  config.evaluators, config.batch_size = {}, 8
  return config


def test_a_label_beyond_the_classes_is_refused_in_whichever_batch_it_comes(tmp_path):
  labels = np.zeros(512, np.int32)
  labels[200] = 10  # of the network's ten, 0 to 9
  built = experiment.build(images(tmp_path, 512, labels=labels), devices=jax.devices()[:1])
  with pytest.raises(experiment.ConfigError, match="^model.num_classes=10: the data have label 10"):
    list(itertools.islice(built.batches(0), 64))  # an epoch
  refused(images(tmp_path), "^model.num_classes=10: the data have no labels")


@pytest.mark.parametrize("occurring", [(0, 3, 7)], ids=str)
def test_classes_that_the_data_lack_are_never_sampled(occurring, tmp_path, caplog):
  config = images(tmp_path, labels=np.resize(np.array(occurring), 64))
  built = experiment.build(config, devices=jax.devices()[:1])
  assert built.examples.labels == occurring
  assert "samples are of these alone" in caplog.text


def test_numbers_of_the_first_batch_must_be_finite():
  config = imm_digits.get_config("smoke")
  config.data = dict(name="tests.trust.test_faults.nan_batches", bad_from=0)
  refused(config, "^data: x: nan at example 0")


@pytest.mark.parametrize("rate,weight", [(0.0, 2.0)])
def test_guidance_needs_a_network_that_was_trained_without_its_condition(rate, weight):
  config = imm_digits.get_config("smoke")
  config.objective.drop_rate, config.sampler.guidance = rate, weight
  built = experiment.build(config, devices=jax.devices()[:1])
  with pytest.raises(experiment.ConfigError, match=f"^sampler.guidance={weight}: .*drop_rate"):
    sample.make_draw(built)
