"""Saving beside training; what damage and kills do is in tests/trust."""

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


def test_training_goes_on_while_a_save_waits_for_the_disk(tmp_path, stuck):
  held, go_on = stuck
  state = dict(x=jnp.arange(1 << 16, dtype=jnp.float32))
  step = jax.jit(lambda state: dict(x=2 * state["x"]), donate_argnums=0)
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    held.set()
    checkpoints.save(1, state)
    for _ in range(3):
      state = jax.block_until_ready(step(state))  # its memory may be used again
    assert not checkpoint.steps(str(tmp_path)), "or nothing was held up"
    go_on.set()
  assert checkpoint.steps(str(tmp_path)) == [1]
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = dict(x=jax.ShapeDtypeStruct((1 << 16,), jnp.float32, sharding=place))
  restored = checkpoint.restore(str(tmp_path), abstract)["x"]
  np.testing.assert_array_equal(restored, np.arange(1 << 16, dtype=np.float32))
