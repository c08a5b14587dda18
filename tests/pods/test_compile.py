"""The mode on host devices, which stand for chips; a TPU's compiler is in test_tpu.py."""

import json

import jax
import pytest

from configs import imm_fashion, imm_imagenet256
from dfim.config import schema
from dfim.config.errors import ConfigError, FieldError
from dfim.pods import advice, compile as compile_lib, counts, hlo, rows as rows_lib
from dfim.training import chips, experiment as experiment_lib, generator

CHIP = chips.Chip(flops=1e12, memory=2**30, memory_rate=1e11, link_rate=1e10, network_rate=None)


@pytest.fixture
def compiled(monkeypatch, tmp_path, capsys):
  """Compiles a config for eight chips; returns rows, the report and the folder."""

  def compiled(config, chip=CHIP, **options):
    monkeypatch.setattr("dfim.pods.topology.devices", lambda name, slices: jax.devices())
    monkeypatch.setattr(chips, "of", lambda device: chip)
    with jax.debug_key_reuse(False):
      rows = compile_lib.compile_config(config, "v5e:2x4", out=str(tmp_path / "out"), **options)
    return rows, capsys.readouterr().out, tmp_path / "out"

  return compiled


def imagenet(**changes):
  config = imm_imagenet256.get_config("smoke")
  config.data.path = "/none"
  config.update_from_flattened_dict(changes)
  return config


def test_a_step_and_samplers_are_compiled_without_data(compiled):
  rows, text, out = compiled(imagenet())
  assert [row["program"] for row in rows] == [
    "training step",
    "sampler, steps 1",
    "sampler, steps 8",
  ]
  assert json.loads((out / "row.json").read_text()) == json.loads(json.dumps(rows))
  assert {p.name for p in out.glob("*.hlo")} == {"step.hlo", "sampler_1.hlo", "sampler_8.hlo"}
  step, few, many = rows
  for row in rows:
    assert row["fits"] and row["program"] in text and row["topology"] == "v5e:2x4"
    kinds = ("arguments", "outputs", "temporaries", "code")
    assert sum(row["memory_gib"][kind] for kind in kinds) == pytest.approx(
      row["memory_gib"]["total"]
    )
    seconds = row["seconds"]
    assert seconds["largest"] == max(seconds[term] for term in ("compute", "memory", "links"))
  hours = step["recipe_steps"] * 8 / 3600 * step["seconds"]["largest"]
  assert step["chip_hours"]["largest"] == pytest.approx(hours)
  assert "all-reduce" in step["collectives"]
  assert 7 < many["compiled_tflop"] / few["compiled_tflop"] < 8.1, "but what labels cost, once"
  assert any("4 is no multiple of 8 chips: 8 samples" in line for line in few["warnings"])


def build(config):
  experiment = generator.stated_examples(schema.complete(config))
  return experiment_lib.build(config, devices=jax.devices(), examples=experiment)


def test_products_of_the_model_and_of_the_program_agree_but_for_recomputation(monkeypatch):
  """XLA counts what is not a product too: a tenth or so of so small a network."""
  monkeypatch.setattr(chips, "of", lambda device: CHIP)
  with jax.debug_key_reuse(False):
    step = lambda remat: compile_lib.compile_program(
      build(imagenet(**{"model.remat": remat})), None
    )
    (plain, _), (again, _) = step("none"), step("block")
  assert plain["model_tflop"] == again["model_tflop"]
  assert 0.8 < plain["compiled_tflop"] / plain["model_tflop"] < 1.0
  assert 1.15 < again["compiled_tflop"] / plain["compiled_tflop"] < 1.3, "one of four passes"


def test_a_state_that_is_cut_takes_a_part_of_each_chip(monkeypatch):
  monkeypatch.setattr(chips, "of", lambda device: CHIP)
  row = lambda n: rows_lib.Row(build(imagenet(fsdp=n, **{"model.width": 256})), None).refused(
    (2, 1)
  )
  whole, cut = row(1), row(8)
  assert whole["state_gib"] == whole["whole_gib"] and whole["fsdp"] == 1
  assert cut["state_gib"] < 0.3 * whole["state_gib"] and cut["fsdp"] == 8
  assert cut["whole_gib"] < 0.1 * whole["whole_gib"]


def test_a_program_larger_than_a_chip_ends_with_the_fix(compiled, capsys):
  small = chips.Chip(1e12, memory=2**20, memory_rate=1e11, link_rate=1e10, network_rate=None)
  with pytest.raises(compile_lib.DoesNotFitError, match="training step and sampler, steps 1"):
    compiled(imagenet(fsdp=1, **{"model.remat": "none", "sampler.steps": (1,)}), small)
  text = capsys.readouterr().out
  assert "refused" in text and "--config.model.remat" in text and "--config.fsdp=-1" in text


@pytest.mark.parametrize(
  "changes,field",
  [
    ({"data.shape": (32, 32)}, "model"),
    ({"batch_size": 12}, "batch_size"),
    ({"steps": 0}, "steps"),
  ],
  ids=str,
)
def test_a_wrong_config_is_refused_before_anything_is_compiled(changes, field, compiled):
  with pytest.raises(ConfigError, match=f"^{field}"):
    compiled(imagenet(**changes))


def test_data_that_are_absent_are_refused_with_the_way_without_them(compiled):
  config = imm_fashion.get_config("smoke")
  config.data.path = "/none"
  with pytest.raises(ConfigError, match="^data.path.*/none.*data.shape"):
    compiled(config)


def test_slices_of_a_chip_without_a_published_network_are_refused(compiled):
  with pytest.raises(FieldError) as error:
    compiled(imagenet(), slices=2)
  assert error.value.field == "--slices"


def test_a_refusal_of_the_compiler_is_read_and_other_errors_are_not():
  text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 31.90G of 15.75G hbm."
  wanted, there = rows_lib.refusal(text)
  assert wanted == pytest.approx(31.9 * 2**30) and there == pytest.approx(15.75 * 2**30)
  assert rows_lib.refusal("Used 512.0M of 1G hbm") == (2**29, 2**30)
  assert rows_lib.refusal("INTERNAL: something else") is None


@pytest.mark.parametrize(
  "dims,moves",
  [
    ((4096, 256, 1152), True),
    ((256, 4096, 18), True),
    ((4096 * 256, 1152), True),
    ((4096, 1152), True),
    ((28, 1152, 4608), False),
    ((4096, 4), False),
    ((4095, 256, 1152), False),
  ],
)
def test_activations_are_told_from_weights(dims, moves):
  one = counts.Collective("all-gather", (hlo.Array("bf16", dims),), (0, 1), 1)
  assert bool(advice.moves_batch([one], rows=4096, tokens=256)) == moves


def test_a_state_that_is_whole_although_it_should_be_cut_is_told():
  built = build(imagenet())
  none = counts.Counts({}, 0, (), 0, 0)
  assert advice.of_step(built, none, 100, 100, CHIP) == []
  (line,) = advice.of_step(built, none, 2**29, 2**29, CHIP)
  assert "0.5 GiB" in line and "fsdp" in line
  unknown = counts.Counts({}, 0, (), 0, 2)
  assert "2 loops" in advice.of_step(built, unknown, 100, 100, CHIP)[0]


def test_weights_as_long_as_the_batch_are_no_activations():
  """L's MLP is 4,096 wide, as many as the paper's rows."""
  one = counts.Collective("all-gather", (hlo.Array("bf16", (1, 1024, 4096)),), (0, 1), 1)
  fc1 = dict(kernel=jax.ShapeDtypeStruct((24, 1024, 4096), jax.numpy.float32))
  assert advice.moves_batch([one], 4096, 256) and not advice.moves_batch([one], 4096, 256, fc1)
