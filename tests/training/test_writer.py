"""Lines, events and pictures of a run, and of one that resumes."""

import importlib.util
import json
import math
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from tensorboardX.proto import event_pb2

from dfim.training import writer

TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
  found = []
  for path in sorted(workdir.glob("events.*")):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack("<Q", data[:8])
      found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[12 + length + 4 :]
  return found


def log(workdir, first, last, start=0):
  with writer.Writer(workdir, start) as w:
    for step in range(first, last + 1):
      w.scalars(step, dict(loss=1 / step))


def test_a_line_holds_a_step_and_plain_numbers_and_null_for_others(tmp_path):
  with writer.Writer(tmp_path) as w:
    w.scalars(np.int64(3), dict(loss=jnp.float32(0.5), n=np.int32(7), b=jnp.bfloat16(2), v=[1.5]))
    assert lines(tmp_path) == [dict(step=3, loss=0.5, n=7, b=2.0, v=1.5)]  # before it is closed
    w.scalars(4, dict(a=jnp.nan, b=np.inf, c=-math.inf, d=jnp.bfloat16(jnp.nan), e=2.5))
  refuse = lambda word: pytest.fail(f"{word} is not JSON")
  last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
  nulls = dict.fromkeys("abcd")
  assert json.loads(last, parse_constant=refuse) == {"step": 4, **nulls, "e": 2.5}
  log(tmp_path, 5, 5, start=4)
  assert [line["step"] for line in lines(tmp_path)] == [3, 4, 5], "a line with nulls stays"


def test_a_resumed_log_equals_an_unbroken_one(tmp_path):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  log(whole, 1, 9)
  log(broken, 1, 7)  # killed after 7, its last checkpoint at 4
  log(broken, 5, 9, start=4)
  assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3}', "[1]\n", "\0\0\0"])
def test_a_torn_line_is_dropped(tmp_path, torn):
  log(tmp_path, 1, 2)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write(torn)
  log(tmp_path, 3, 3, start=9)
  assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
  log(tmp_path, 1, 1)
  assert [line["step"] for line in lines(tmp_path)] == [1], "a run that starts anew drops all"


def test_an_inactive_writer_leaves_no_trace_and_arrays_are_no_scalars(tmp_path):
  with writer.Writer(tmp_path / "run", active=False) as w:
    w.scalars(1, dict(loss=1.0))
    w.image(1, "samples", np.zeros((2, 2, 1), np.uint8))
  assert not (tmp_path / "run").exists()
  with writer.Writer(tmp_path) as w, pytest.raises(ValueError, match="^loss: "):
    w.scalars(1, dict(loss=np.zeros(2)))


@pytest.mark.skipif(TENSORFLOW, reason="clu writes tensors, not simple values")
def test_events_can_be_read_back(tmp_path):
  picture = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
  with writer.Writer(tmp_path) as w:
    w.scalars(5, dict(loss=0.25))
    w.image(5, "samples", picture)
  np.testing.assert_array_equal(Image.open(tmp_path / "samples/5.png"), picture)
  values = {v.tag: (e.step, v) for e in events(tmp_path) for v in e.summary.value}
  assert values["loss"][0] == 5 and values["loss"][1].simple_value == 0.25
  assert (values["samples"][1].image.height, values["samples"][1].image.width) == (4, 6)


def test_events_of_later_steps_are_purged_on_resume(tmp_path):
  log(tmp_path, 1, 3)
  log(tmp_path, 2, 2, start=1)  # within the same second: still a file of its own
  marks = [e.step for e in events(tmp_path) if e.session_log.status == 1]
  assert marks == [1, 2]  # TensorBoard forgets these steps and later ones there
  steps = [e.step for e in events(tmp_path) if e.summary.value]
  assert steps == [1, 2, 3, 2]


@pytest.mark.skipif(TENSORFLOW, reason="clu's writers import tensorflow")
def test_imports_no_tensorflow(tmp_path):
  code = f"""import sys; from dfim.training.writer import Writer
Writer({str(tmp_path)!r}).close()
assert not {{'tensorflow', 'clu', 'jax'}} & set(sys.modules)"""
  subprocess.run([sys.executable, "-c", code], check=True)
