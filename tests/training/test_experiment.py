"""Configs that would train on something else than they say are refused, field and fix named."""

import itertools

import jax
import numpy as np
import pytest

from benchmarks import moment_forcing
from configs import imm_digits
from configs import moment_forcing_walk
from dfim import sample
from dfim.training import experiment

TOKEN, TWO_STREAM = (dict(name=f"core.times.{name}") for name in ("token", "two_stream"))


def refused(config, message):
  with pytest.raises(experiment.ConfigError, match=message) as said:
    experiment.build(config, devices=jax.devices()[:1])
  assert "\n" not in str(said.value)


@pytest.mark.parametrize(
  "streams,pattern,said",
  [(2, TOKEN, "is of one stream; set streams=1"), (1, TWO_STREAM, "two_stream needs 2; set that")],
  ids=str,
)
def test_two_streams_and_their_pattern_go_together(streams, pattern, said):
  config = moment_forcing_walk.get_config("smoke")
  config.objective.streams = streams
  config.objective.sample_times.pattern = pattern
  refused(config, f"^objective.streams={streams}: .*{said}")


@pytest.mark.parametrize(
  "streams,pattern", [(1, TOKEN), (2, dict(TWO_STREAM, noisy=0.25))], ids=["one stream", "noisy"]
)
def test_what_is_advised_where_prefixes_do_not_stand_still_is_enough(streams, pattern):
  config = moment_forcing_walk.get_config("smoke")
  config.objective.streams = streams
  config.objective.sample_times.pattern = pattern
  refused(
    config, "set that, or .*=core.grouping.as_they_came, .*=core.posterior.own and .*erence=1"
  )
  config.objective.groups.name = "core.grouping.as_they_came"
  config.objective.datum = dict(name="core.posterior.own")
  config.objective.reference = 1
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
    (
      3,
      "^batch_size=64: not a multiple of objective.group_size x devices x accumulate = .*=60",
    ),
    (0, "^accumulate=0: set it to 1 or more"),
    (2.0, "^accumulate=2.0: wants int"),
  ],
)
def test_micro_batches_of_broken_groups_are_refused(accumulate, message):
  config = imm_digits.get_config("smoke")
  config.accumulate = accumulate
  refused(config, message)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_reference_batch_is_read_for_each_batch_that_the_network_sees(accumulate):
  config = moment_forcing_walk.get_config("smoke")
  config.accumulate = accumulate
  built = experiment.build(config, devices=jax.devices()[:1])
  read = config.objective.reference * config.batch_size
  assert read > config.batch_size
  assert built.batch["x"].shape[0] == read == len(next(built.batches(0))["x"])


SCHEDULE = dict(name="optax.constant_schedule", value=0.5)


@pytest.mark.parametrize("reach", [0.5, SCHEDULE], ids=str)
def test_a_reach_is_refused_where_nothing_can_reach(reach):
  config = moment_forcing_walk.get_config("smoke")
  times = config.objective.sample_times
  config.objective = dict(
    name="objectives.shortcut.loss",
    f=config.objective.f.to_dict(),
    sample_times=dict(
      name="core.times.dyadic", pattern=TOKEN, t_max=times.t_max, t_min=times.t_min
    ),
    weight=dict(name="core.weights.uniform"),
  )
  experiment.build(config, devices=jax.devices()[:1])
  config.reach = reach
  refused(config, "^reach: only core.times.sample has one; leave it at 1.0")


@pytest.mark.parametrize(
  "field,value,message",
  [
    ("objective.weight", dict(name="core.weights.fused_snr"), "^objective.weight: fused_snr"),
    (
      "model",
      dict(name="models.df_transformer.ReleasedTransformer"),
      "^objective.streams=2: ReleasedTransformer has one stream",
    ),
    ("objective.sample_times", dict(name="core.times.sample"), "^objective.sample_times: give it"),
    ("objective.particles", dict(name="core.particles.example"), "particles.example with times"),
    ("objective.sample_times.s_at_t_min", 3.0, "s_at_t_min=3.0: a probability"),
  ],
)
def test_what_two_streams_cannot_use_is_refused(field, value, message):
  config = moment_forcing_walk.get_config("smoke")
  moment_forcing.changed(config, {field: value})
  refused(config, message)


def test_a_label_beyond_the_classes_is_refused_in_whichever_batch_it_comes(tmp_path):
  label = np.zeros(512, np.int32)
  label[200] = 10  # of the network's ten, 0 to 9
  np.savez(tmp_path / "some.npz", images=np.zeros((512, 8, 8, 1), np.uint8), labels=label)
  config = imm_digits.get_config("smoke")
  config.data = dict(name="data.images.sets.npz", path=str(tmp_path / "some.npz"))
  config.evaluators = {}
  config.batch_size = 8
  built = experiment.build(config, devices=jax.devices()[:1])
  with pytest.raises(experiment.ConfigError, match="^model.num_classes=10: the data have label 10"):
    list(itertools.islice(built.batches(0), 64))  # an epoch


def images(tmp_path, **arrays):
  np.savez(tmp_path / "some.npz", images=np.zeros((64, 8, 8, 1), np.uint8), **arrays)
  config = imm_digits.get_config("smoke")
  config.data = dict(name="data.images.sets.npz", path=str(tmp_path / "some.npz"))
  config.evaluators = {}
  return config


def test_classes_without_labels_are_refused(tmp_path):
  refused(images(tmp_path), "^model.num_classes=10: the data have no labels")


@pytest.mark.parametrize("occurring", [(0, 1, 2), (0, 3, 7)], ids=str)
def test_classes_that_the_data_lack_are_never_sampled(occurring, tmp_path, caplog):
  config = images(tmp_path, labels=np.resize(np.array(occurring), 64))
  built = experiment.build(config, devices=jax.devices()[:1])
  assert built.labels == occurring
  assert "samples are of these alone" in caplog.text


def test_numbers_of_the_first_batch_must_be_finite():
  config = imm_digits.get_config("smoke")
  config.data = dict(name="tests.trust.test_faults.nan_batches", bad_from=0)
  refused(config, "^data: x: nan at example 0")


@pytest.mark.parametrize("rate,weight", [(0.0, 2.0), (0.0, 0.5)], ids=str)
def test_guidance_needs_a_network_that_was_trained_without_its_condition(rate, weight):
  config = imm_digits.get_config("smoke")
  config.objective.drop_rate, config.sampler.guidance = rate, weight
  built = experiment.build(config, devices=jax.devices()[:1])
  with pytest.raises(experiment.ConfigError, match=f"^sampler.guidance={weight}: .*drop_rate"):
    sample.make_draw(built)
