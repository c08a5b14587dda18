"""Saving beside training; what damage and kills do is in tests/trust."""

import gc
import sys
import threading

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from dfim import checkpoint

CONFIG = ml_collections.ConfigDict(dict(checkpoint_every=1, keep_checkpoints=2))


@pytest.fixture
def stuck():
  """While it is set, this process's renames stand still: a disk that does not answer."""
  held, go_on = threading.Event(), threading.Event()

  def hook(event, args):  # there is no taking an audit hook away; it does nothing once let go
    if event == "os.rename" and held.is_set():
      go_on.wait(60)

  sys.addaudithook(hook)
  yield held, go_on
  held.clear()
  go_on.set()


def restored(workdir, size):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = dict(x=jax.ShapeDtypeStruct((size,), jnp.float32, sharding=place))
  return np.asarray(checkpoint.restore(str(workdir), abstract)["x"])


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
def test_what_is_written_later_is_what_was_due(tmp_path, every):
  config = ml_collections.ConfigDict(dict(checkpoint_every=every, keep_checkpoints=100))
  last, later = 24, checkpoint.Checkpoints.LATER
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


def test_a_save_leaves_no_objects_behind(tmp_path):
  state, saves = {f"array {n}": jnp.zeros(2) for n in range(30)}, 8
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:

    def blocks_after(first):
      for n in range(first, first + saves):
        checkpoints.save(n, state, force=True)
      gc.collect()
      return sys.getallocatedblocks()

    start, end = blocks_after(1), blocks_after(1 + saves)
  assert end - start < 30 * saves, "less than an object for each array"
