"""Evaluators: refused before training, scored one by one, and none lost with another."""

import functools
import json
import logging
import math
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import forcing_walk, imm_digits, imm_toy
from dfim import evaluate, train
from dfim.config.errors import ConfigError
from dfim.data import examples
from dfim.training import generator as generator_lib

NAN = float("nan")


def read(path):
  refuse = lambda word: pytest.fail(f"{word} is not JSON")
  return json.loads(path.read_text(), parse_constant=refuse)


def good(draw, params, *, value=1.0):
  """An evaluator of the numbers of types that scores have, and a figure."""
  row = dict(a=np.float32(value), b=2, c=None)
  return {"1 steps": row, "features": "f"}, dict(figure=np.zeros((2, 3), np.uint8))


def raises(draw, params):
  raise ZeroDivisionError("division\nby zero")


GOOD = {"1 steps": dict(a=1.0, b=2, c=None), "features": "f"}
run = functools.partial(evaluate.run, draw=None, params=None, step=7)


def test_scores_and_figures_are_written(tmp_path):
  path = tmp_path / "eval" / "7.json"
  found = run(dict(one=good, two=functools.partial(good, value=3.0)), path=path)
  assert read(path) == dict(one=GOOD, two=GOOD | {"1 steps": GOOD["1 steps"] | dict(a=3.0)})
  assert list(found) == ["one", "two"]
  assert Image.open(path.with_name("7_one_figure.png")).size == (3, 2)
  assert Image.open(path.with_name("7_two_figure.png")).size == (3, 2)


FAULTY = dict(
  raises=(raises, "ZeroDivisionError: division by zero"),
  scores_none=(lambda draw, params: None, "TypeError: "),
  scores_what_no_file_holds=(lambda draw, params: (dict(a=object()), {}), "TypeError: "),
  draws_no_figure=(lambda draw, params: (GOOD, dict(a=np.zeros((2, 2, 7)))), "TypeError: "),
)


@pytest.mark.parametrize("fault, line", FAULTY.values(), ids=FAULTY.keys())
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_fails_loses_none_of_the_others(tmp_path, caplog, fault, line, place):
  evaluators = list(dict(first=good, last=good).items())
  evaluators.insert(place, ("bad", fault))
  path = tmp_path / "7.json"
  with caplog.at_level(logging.ERROR), pytest.raises(evaluate.ScoreError) as error:
    run(dict(evaluators), path=path)
  assert f"bad ({line}" in str(error.value) and "\n" not in str(error.value)
  assert read(path).items() >= dict(first=GOOD, last=GOOD).items()
  assert error.value.found.keys() >= {"first", "last"} and "Traceback" in caplog.text
  assert evaluate.is_complete(path, ["first", "last"])
  assert path.with_name("7_last_figure.png").exists()


def test_the_file_is_replaced_after_each_evaluator(tmp_path):
  path = tmp_path / "7.json"
  seen = []

  def looks(draw, params):
    seen.append(read(path))
    return {}, {}

  run(dict(one=good, two=looks, three=looks), path=path)
  assert seen == [dict(one=GOOD), dict(one=GOOD, two={})]


def test_where_all_fail_there_is_no_file(tmp_path):
  with pytest.raises(evaluate.ScoreError, match=r"a \(.*; b \(.*; no score was found"):
    run(dict(a=raises, b=raises), path=tmp_path / "7.json")
  assert not list(tmp_path.iterdir()) and not evaluate.is_complete(tmp_path / "7.json", ["a"])


def test_a_run_ends_with_the_failure_and_keeps_all_else(tmp_path):
  config = imm_toy.get_config("smoke")
  config.update(steps=2, eval_every=1, log_every=1)
  config.evaluators = {
    name: dict(name=f"tests.test_evaluate.{name}") for name in ("raises", "good")
  }
  with jax.debug_key_reuse(False), pytest.raises(evaluate.ScoreError, match="step 2: raises"):
    train.train(config, str(tmp_path), devices=jax.devices()[:1])
  for step in (1, 2):
    path = evaluate.path_of(str(tmp_path), step)
    assert read(path) == dict(good=GOOD)
    assert not evaluate.is_complete(path, config.evaluators)
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines if "good/1_steps/a" in line] == [1, 2]
  with jax.debug_key_reuse(False), pytest.raises(evaluate.ScoreError, match="step 2: raises"):
    evaluate.evaluate(config, str(tmp_path), devices=jax.devices()[:1])
  assert read(tmp_path / "eval" / "2_1.json") == dict(good=GOOD)


@pytest.mark.parametrize(
  "values, path",
  [
    ({"2 steps": dict(frechet=NAN)}, "images/2 steps/frechet"),
    (dict(a=np.float32(np.inf)), "images/a"),
    (dict(a=jnp.asarray(-jnp.inf, jnp.bfloat16)), "images/a"),
    (dict(a=[1.0, (2.0, NAN)]), "images/a/1/1"),
    (dict(a=np.array([1.0, NAN])), "images/a"),
  ],
)
def test_a_score_that_is_not_finite_is_null_and_a_failure(tmp_path, caplog, values, path):
  file = tmp_path / "7.json"
  with (
    caplog.at_level(logging.ERROR),
    pytest.raises(evaluate.ScoreError, match=path),
  ):
    run(dict(images=lambda draw, params: (values, {}), last=good), path=file)
  assert f"{path} is not finite" in caplog.text
  found = read(file)
  assert found["last"] == GOOD and "null" in json.dumps(found["images"])


def test_no_value_is_null_and_no_failure(tmp_path):
  values = {"bins": [0.5, None], "1 steps": dict(nearest=None)}
  found = run(dict(images=lambda draw, params: (values, {})), path=tmp_path / "7.json")
  assert read(tmp_path / "7.json") == dict(images=values) == found


def test_what_failed_is_logged_and_raised_at_once_by_one_of_many_processes(tmp_path, monkeypatch):
  monkeypatch.setattr(evaluate.jax, "process_count", lambda: 2)
  with pytest.raises(evaluate.ScoreError) as error:
    run(dict(one=good, bad=raises, last=pytest.fail), path=tmp_path / "7.json")
  assert list(error.value.found) == ["one"] and read(tmp_path / "7.json") == dict(one=GOOD)


def test_a_table_of_rows_with_other_columns():
  values = {
    "features": "digits",
    "list": [1, 2],
    "1 steps": dict(frechet=1.23456, n=5000, name="a"),
    "held out": dict(frechet=None, energy=np.float32(-0.5), n=NAN),
  }
  assert evaluate.table(values).splitlines() == [
    "features: digits",
    "list: [1, 2]",
    "              frechet          n       name     energy",
    "1 steps         1.235       5000          a           ",
    "held out            -        nan                  -0.5",
  ]


def test_numbers_alone_are_flattened():
  found = {
    "images": {"2 steps": dict(frechet=1.5, nearest=None), "features": "f", "bins": [1, None]},
    "n": np.int64(3),
    "bad": NAN,
  }
  flat = evaluate.flat(found)
  assert math.isnan(flat.pop("bad"))
  assert flat == {"images/2_steps/frechet": 1.5, "n": 3}


# Configs whose evaluators cannot work.

RESULT = {}, {}


def counts(draw, params, *, count=3, skip: int = 0, share: float = 0.5, of=(1, 2), seed=0):
  return RESULT


def strict(draw, params, *, bins: int, steps=(1,)):
  return RESULT


def check_strict(*, bins, steps=(1,), shape):
  if bins > shape[0]:
    raise ValueError(f"bins={bins}: images have {shape[0]} rows;\nuse fewer")


def own(name, **given):
  return {"mine": dict(name=f"tests.test_evaluate.{name}", **given)}


DIGITS, WALK, TOY = (
  (imm_digits, (8, 8, 1)),
  (forcing_walk, (6, 2)),
  (imm_toy, (2,)),
)
TRAIN = dict(name="data.images.digits.load", split="train")
STEERED = dict(name="data.synthetic.steered_walk.load", size=64)
CASES = {
  "held out is the reference": (
    DIGITS,
    dict(images=dict(held_out=TRAIN)),
    "evaluators.images.held_out: 1437 of its 1437 images",
  ),
  "a cache below a file": (
    DIGITS,
    dict(images=dict(cache="/dev/null/a")),
    "evaluators.images.cache='/dev/null/a': ",
  ),
  "too few samples": (DIGITS, dict(images=dict(samples=4)), "evaluators.images.samples=4: give 6"),
  "too few points": (
    TOY,
    dict(points=dict(reference=dict(name="data.synthetic.toys.load", size=5))),
    "evaluators.points.reference.x of 5 rows: give 6 or more",
  ),
  "too few walks": (
    WALK,
    dict(walk=dict(reference=dict(name="data.synthetic.walk.load", size=4))),
    "evaluators.walk.reference.x of 4 sequences: give 6",
  ),
  "walks of another length": (
    WALK,
    dict(walk=dict(reference=dict(name="data.synthetic.walk.load", size=9, tokens=7))),
    "evaluators.walk.reference.x: sequences of shape (7, 2), samples are of (6, 2)",
  ),
  "a stretch beyond the rollout": (
    WALK,
    dict(rollout=dict(tokens=99)),
    "evaluators.rollout.tokens=99: the sequences of reference have 24",
  ),
  "an evaluator's own check": (DIGITS, own("strict", bins=9), "evaluators.mine: bins=9: images"),
  "conditions of a network that has none": (
    WALK,
    {"walk": dict(name="evaluators.sequences.scores", reference=STEERED, steps=(1,))},
    "evaluators.walk: reference.cond.gain: the training data have no such condition, but none.",
  ),
  "a count that is a float": (
    DIGITS,
    own("counts", count=2.0),
    "evaluators.mine.count=2.0: give a",
  ),
  "a count of none": (DIGITS, own("counts", count=0), "evaluators.mine.count=0: give 1 or more"),
  "a count below none": (DIGITS, own("counts", skip=-1), "evaluators.mine.skip=-1: give 0 or more"),
  "a nested NaN": (DIGITS, own("counts", of=((1.0, NAN),)), "evaluators.mine.of="),
  "nested steps": (DIGITS, own("strict", bins=1, steps=((1, 2), (3,))), "evaluators.mine.steps="),
  "steps of floats": (DIGITS, own("strict", bins=1, steps=(1.0,)), "evaluators.mine.steps=[1.0]"),
  "steps that are True": (DIGITS, own("strict", bins=1, steps=(True,)), "evaluators.mine.steps="),
  "no steps": (DIGITS, own("strict", bins=1, steps=()), "evaluators.mine.steps=[]"),
}


def evaluators_of(config, shape):
  """The evaluators of samples of `shape`; opens no data."""
  with tempfile.TemporaryDirectory() as folder:
    examples.write(folder, examples.Examples(dict(x=np.zeros((1, *shape), np.float32))), 1)
    return evaluate.build(generator_lib.build(config, folder))


@pytest.mark.parametrize("data, change, line", CASES.values(), ids=CASES.keys())
def test_arguments_that_cannot_work_are_refused_with_their_field(data, change, line):
  module, shape = data
  config = module.get_config("smoke")
  for name, fields in change.items():
    if name in config.evaluators and "name" not in fields:
      config.evaluators[name].update(fields)
    else:
      config.evaluators[name] = fields
  with pytest.raises(ConfigError) as error:
    evaluators_of(config, shape)
  assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_a_rollout_needs_a_sampler_of_any_length():
  config = forcing_walk.get_config("smoke")
  evaluators_of(config, (6, 2))
  config.sampler.rollout.length = 6
  with pytest.raises(ConfigError, match="evaluators.rollout: .*sampler.rollout.length"):
    evaluators_of(config, (6, 2))


def test_arguments_that_can_work_are_taken():
  config = imm_digits.get_config("smoke")
  config.evaluators = own("counts", count=1, skip=0, share=0, of=((1.0, 2),), seed=0)
  assert evaluators_of(config, (8, 8, 1))["mine"](None, None) == RESULT
  config.evaluators = own("strict", bins=8)
  assert set(evaluators_of(config, (8, 8, 1))) == {"mine"}
