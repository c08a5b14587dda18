"""One stream of samples, however many hosts and workers read it and are killed.

The set is prepared by tfds here; a sample's label is its index, and its pixels encode the same.
"""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dfim.data import base
from dfim.data.images import sets
from tests.data import stand_ins
from tests.data.helpers import all_end

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = stand_ins.needs_extra

SIZE, BATCH, SEED = 44, 8, 5  # a batch may straddle two epochs; 11 batches are two of them
BATCHES = 110


class Counted(stand_ins.Stored):
  """44 samples: number i has label i and the grey 5 i."""

  name, VERSION, CLASSES = "counted", tfds.core.Version("1.0.0"), SIZE
  PIXELS = np.tile(np.uint8(5 * np.arange(SIZE)).reshape(-1, 1, 1, 1), (1, 2, 2, 1))
  SPLITS = dict(train=range(SIZE))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  Counted(data_dir=path, file_format="array_record").download_and_prepare()
  return path


def indices(batch):
  label = batch["cond"]["label"]
  np.testing.assert_array_equal(np.rint((batch["x"][:, 0, 0, 0] + 1) * 127.5), 5 * label)
  return label


def source(data_dir, start=0, **how):
  """The indices of batch `start`, `start + 1`, ..."""
  kwargs = dict(dataset="counted", data_dir=data_dir, threads=2) | how
  return map(indices, sets.tfds(BATCH, SEED, start, **kwargs))


def stream(data_dir, stop=BATCHES, start=0, **how):
  return np.stack(list(itertools.islice(source(data_dir, start, **how), stop - start)))


@pytest.fixture(scope="module")
def unbroken(data_dir):
  return stream(data_dir)


def assert_each_once_an_epoch(read):
  epochs = np.reshape(read, (-1, SIZE))
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(SIZE), (len(epochs), 1)))
  assert len({tuple(e) for e in epochs}) == len(epochs)  # in an order of its own


def test_each_sample_comes_once_an_epoch_in_an_order_of_the_seed_alone(unbroken):
  assert_each_once_an_epoch(unbroken)
  rows = base.rows(SIZE, BATCH, SEED)
  files = {tuple(r): tuple(i) for r, i in zip(map(rows, range(BATCHES)), unbroken, strict=True)}
  place = {row: index for r, i in files.items() for row, index in zip(r, i, strict=True)}
  assert sorted(place) == sorted(place.values()) == list(range(SIZE))
  np.testing.assert_array_equal(unbroken, [[place[r] for r in rows(n)] for n in range(BATCHES)])


@pytest.mark.parametrize(
  "count, workers",
  [(1, 1), (2, 0), (4, 0)]
  + [pytest.param(*n, marks=pytest.mark.slow) for n in [(1, 4), (2, 1), (4, 4)]],
)
def test_hosts_and_their_workers_read_one_stream_together(data_dir, unbroken, count, workers):
  how = dict(stop=22, workers=workers)
  parts = [stream(data_dir, process=(i, count), **how) for i in range(count)]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), unbroken[:22])


def kills(seed):
  """Before which batches five kills come."""
  return np.sort(np.random.default_rng(seed).choice(np.arange(2, BATCHES - 2), 5, replace=False))


CONSUMER = """
import multiprocessing, sys, time
from tests.trust import test_index_stream as stream

log, data_dir, workers = sys.argv[1:]
with open(log, "a+") as file:
  file.seek(0)
  start = len(file.readlines())  # what a checkpoint holds: how many batches were used
  for n, indices in enumerate(stream.source(data_dir, start, workers=int(workers)), start):
    if n == start + 1:
      print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    if n == stream.BATCHES:
      break
    print(n, *indices, file=file, flush=True)
    time.sleep(0.01)  # a step
"""


def consume(log, data_dir, workers, kill_at=None):
  """Reads on from where the log ends, until it ends or is killed; returns the workers' pids."""
  command = [sys.executable, "-c", CONSUMER, str(log), str(data_dir), str(workers)]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
    if kill_at is not None:
      ends = time.monotonic() + 120
      while len(whole_lines(log)) < kill_at and time.monotonic() < ends:
        time.sleep(0.002)
      process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
  assert process.returncode == (0 if kill_at is None else -signal.SIGKILL)
  log.write_text("".join(whole_lines(log)))  # a line cut short was not used
  return [int(pid) for pid in out.split()]


def whole_lines(log):
  lines = log.read_text().splitlines(keepends=True) if log.exists() else []
  return [line for line in lines if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="no /proc")
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_five_sigkills_miss_and_repeat_nothing_and_leave_no_worker(
  data_dir, unbroken, tmp_path, workers
):
  log, pids = tmp_path / "log", []
  for kill_at in kills(10 + workers):
    before = len(whole_lines(log))
    pids += consume(log, data_dir, workers, max(int(kill_at), before + 2))
    assert before + 2 <= len(whole_lines(log)) < BATCHES
  last = consume(log, data_dir, workers)
  read = np.array([line.split() for line in whole_lines(log)], int)
  np.testing.assert_array_equal(read[:, 0], np.arange(BATCHES))
  np.testing.assert_array_equal(read[:, 1:], unbroken)
  assert_each_once_an_epoch(read[:, 1:])
  assert len(pids) == 5 * workers and all_end(pids + last)
