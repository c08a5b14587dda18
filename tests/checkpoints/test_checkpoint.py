"""Saves during training, and restores; tests/trust has damage and kills."""

import sys
import threading

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from dfim.checkpoints import checkpoint, manifest
from dfim.config.errors import ConfigError


def saves(*, every=1, newest=2, milestones=0):
  fields = dict(checkpoint_every=every, keep_checkpoints=newest, keep_every=milestones)
  return ml_collections.ConfigDict(fields)


CONFIG = saves()


@pytest.fixture
def stuck():
  """While it is set, this process's renames wait: a disk that does not answer."""
  held, go_on = threading.Event(), threading.Event()

  def hook(event, args):  # an audit hook cannot be removed; it does nothing once let go
    if event == "os.rename" and held.is_set():
      go_on.wait(60)

  sys.addaudithook(hook)
  yield held, go_on
  held.clear()
  go_on.set()


def restored(workdir, size, **which):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = dict(x=jax.ShapeDtypeStruct((size,), jnp.float32, sharding=place))
  return np.asarray(checkpoint.restore(str(workdir), abstract, **which)["x"])


def test_training_goes_on_while_a_save_waits_for_the_disk(tmp_path, stuck):
  held, go_on = stuck
  state = dict(x=jnp.arange(1 << 16, dtype=jnp.float32))
  step = jax.jit(lambda state: dict(x=2 * state["x"]), donate_argnums=0)
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    held.set()
    checkpoints.save(1, state, force=True)
    for _ in range(3):
      state = jax.block_until_ready(step(state))  # its memory may be used again
    assert not checkpoint.steps(str(tmp_path)), "or nothing was held up"
    go_on.set()
  assert checkpoint.steps(str(tmp_path)) == [1]
  np.testing.assert_array_equal(restored(tmp_path, 1 << 16), np.arange(1 << 16))


@pytest.mark.parametrize("every", [1, 3, 20])
def test_a_state_written_later_is_the_one_that_was_due(tmp_path, every):
  config = saves(every=every, newest=100)
  last, later = 24, checkpoint.Checkpoints.DELAY
  step = jax.jit(lambda state: dict(x=1 + state["x"]), donate_argnums=0)
  state = dict(x=jnp.zeros(5))
  with checkpoint.Checkpoints(str(tmp_path), config) as checkpoints:
    for n in range(1, last + 1):
      state = step(state)
      checkpoints.save(n, state)
      assert not set(checkpoint.steps(str(tmp_path))) & set(range(n - min(every, later) + 1, n + 1))
  due = list(range(every, last + 1, every))
  assert checkpoint.steps(str(tmp_path)) == due, "the last ones at the end"
  np.testing.assert_array_equal(restored(tmp_path, 5), np.full(5, due[-1]))


def test_milestones_stay_with_the_newest_and_each_can_be_restored(tmp_path):
  config = saves(milestones=3)
  with checkpoint.Checkpoints(str(tmp_path), config) as checkpoints:
    for n in range(1, 9):
      checkpoints.save(n, dict(x=jnp.full(5, n, jnp.float32)), force=True)
  assert checkpoint.steps(str(tmp_path)) == [3, 6, 7, 8]
  np.testing.assert_array_equal(restored(tmp_path, 5, step=3), np.full(5, 3))
  np.testing.assert_array_equal(restored(tmp_path, 5), np.full(5, 8))
  with pytest.raises(ConfigError, match="^--step=5: .* 3, 6, 7, 8"):
    restored(tmp_path, 5, step=5)
  with pytest.raises(ConfigError, match=r"another network .* x is float32\[5\]"):
    restored(tmp_path, 6)


@pytest.mark.parametrize("milestones", [0, 4])
def test_milestones_stay_when_a_run_goes_on_without_them_or_with_others(tmp_path, milestones):
  for first, last, every in ((1, 8, 3), (9, 12, milestones)):
    with checkpoint.Checkpoints(str(tmp_path), saves(milestones=every)) as checkpoints:
      for n in range(first, last + 1):
        checkpoints.save(n, dict(x=jnp.zeros(5)), force=True)
  assert checkpoint.steps(str(tmp_path)) == [3, 6, *([8] if milestones else []), 11, 12]


def two_saves(workdir):
  with checkpoint.Checkpoints(str(workdir), CONFIG) as checkpoints:
    for n in (1, 2):
      checkpoints.save(n, dict(x=jnp.full(1 << 16, n, jnp.float32)), force=True)


def test_an_error_that_comes_once_is_no_damage(tmp_path, monkeypatch):
  two_saves(tmp_path)
  load, errors = checkpoint.ocp.load, [RuntimeError("whatever")]

  def fails_once(*args, **kwargs):
    if errors:
      raise errors.pop()
    return load(*args, **kwargs)

  monkeypatch.setattr(checkpoint.ocp, "load", fails_once)
  assert restored(tmp_path, 1 << 16, set_aside=True)[0] == 2
  assert checkpoint.steps(str(tmp_path)) == [1, 2]


@pytest.mark.parametrize(
  "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: memory"), MemoryError("9 bytes")]
)
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, error):
  two_saves(tmp_path)

  def full(*args, **kwargs):
    raise error

  monkeypatch.setattr(checkpoint.ocp, "load", full)
  with pytest.raises(checkpoint.ReadError, match=f"/2 could not be read: .*{error}"):
    restored(tmp_path, 1 << 16, set_aside=True)
  assert checkpoint.steps(str(tmp_path)) == [1, 2]


def test_a_folder_of_checkpoints_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch):
  def stale(path):
    raise OSError(116, "Stale file handle", str(path))

  monkeypatch.setattr(checkpoint.os, "scandir", stale)
  with pytest.raises(checkpoint.ReadError, match="checkpoints could not be read: Stale file"):
    checkpoint.steps(str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem, whose start cannot be read")
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "d/*"])
def test_a_disk_that_fails_is_not_damage_and_moves_nothing(tmp_path, name):
  two_saves(tmp_path)
  newest = checkpoint.folder(str(tmp_path)) / "2"
  for file in [*newest.glob(name), *newest.glob(f"state/{name}")]:
    file.rename(tmp_path / file.name)
    file.symlink_to("/proc/self/mem")
  with pytest.raises(checkpoint.ReadError, match="/2 could not be read: .*Input/output error"):
    restored(tmp_path, 1 << 16, set_aside=True)
  assert checkpoint.steps(str(tmp_path)) == [1, 2]
  for file in [*newest.glob(name), *newest.glob(f"state/{name}")]:
    (tmp_path / file.name).replace(file)
  assert restored(tmp_path, 1 << 16)[0] == 2


def test_another_version_of_the_code_is_logged_and_restores(tmp_path, monkeypatch, caplog):
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    checkpoints.save(1, dict(x=jnp.arange(3.0)), force=True)
  restored(tmp_path, 3)
  assert "was saved by" not in caplog.text
  monkeypatch.setattr(manifest, "versions", lambda: dict(jax="0.0.1"))
  np.testing.assert_array_equal(restored(tmp_path, 3), [0, 1, 2])
  assert f"was saved by jax {jax.__version__}; this is 0.0.1." in caplog.text
