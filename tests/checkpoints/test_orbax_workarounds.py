"""Each fault is still there without its patch, and gone with it: else delete the patch."""

import gc
import sys

import jax.numpy as jnp
import ml_collections
import orbax.checkpoint
import pytest
import tensorstore

from dfim.checkpoints import checkpoint, orbax_workarounds

CONFIG = ml_collections.ConfigDict(dict(checkpoint_every=1, keep_checkpoints=2, keep_every=0))
TO_JSON = tensorstore.KvStore.Spec.to_json
COLLECT = tensorstore.experimental_collect_matching_metrics


@pytest.fixture(autouse=True)
def patched():
  orbax_workarounds.apply()


def blocks_left(call, times=200):
  call()
  gc.collect()
  before = sys.getallocatedblocks()
  for _ in range(times):
    call()
  gc.collect()
  return (sys.getallocatedblocks() - before) / times


def unpatched(function):
  return getattr(function, "__wrapped__", function)


def spec_of(path):
  return tensorstore.KvStore.Spec(dict(driver="file", path=path))


def test_orbax_still_asks_jax_about_the_step_that_it_saves(tmp_path, monkeypatch):
  steps = []
  monkeypatch.setattr(orbax.checkpoint.utils, "reached_preemption", lambda n: steps.append(n))
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    checkpoints.save(7, dict(x=jnp.zeros(2)), force=True)
  assert 7 in steps


def test_jax_is_not_asked_about_the_step_that_is_saved(tmp_path, monkeypatch):
  ask = lambda step: pytest.fail(f"asked about step {step}")
  monkeypatch.setattr("jax.experimental.multihost_utils.reached_preemption_sync_point", ask)
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    checkpoints.save(7, dict(x=jnp.zeros(2)), force=True)


def test_json_and_metrics_leak_without_the_patch_alone(tmp_path):
  spec = spec_of("/one/")
  assert blocks_left(lambda: unpatched(TO_JSON)(spec)) >= 1
  assert blocks_left(spec.to_json) < 1
  store = tensorstore.KvStore.open(dict(driver="file", path=f"{tmp_path}/")).result()
  store.write("a", b"").result()  # without a file there is no metric
  assert blocks_left(lambda: unpatched(COLLECT)("/tensorstore/")) >= 1
  assert blocks_left(lambda: tensorstore.experimental_collect_matching_metrics("/")) < 1


def test_the_cached_json_is_that_of_its_own_folder():
  one = spec_of("/one/")
  assert one.to_json() == dict(driver="file", path="/one/")
  assert spec_of("/two/").to_json() == dict(driver="file", path="/two/")
  one.to_json()["path"] = "/changed/"
  assert one.to_json()["path"] == "/one/"


def test_a_save_asks_for_the_json_less_than_once_an_array(tmp_path, monkeypatch):
  asked, to_json = [], unpatched(TO_JSON)
  counted = lambda spec, *args: asked.append(spec) or to_json(spec, *args)
  monkeypatch.setattr(tensorstore.KvStore.Spec, "to_json", orbax_workarounds.cached(counted))
  state, saves = {f"array {n}": jnp.zeros(2) for n in range(30)}, 3
  with checkpoint.Checkpoints(str(tmp_path), CONFIG) as checkpoints:
    for n in range(saves):
      checkpoints.save(n, state, force=True)
  assert 0 < len(asked) < 30
