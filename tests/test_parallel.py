import json
import math
import subprocess
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim import parallel
from dfim.config.errors import FieldError
from tests import collectives

FSDP = ("fsdp0", "fsdp1", "fsdp2")


def spec_of(shape, mesh):
  return parallel.of_state(jax.ShapeDtypeStruct(shape, jnp.float32), mesh).spec


@pytest.mark.parametrize(
  "shape, spec",
  [
    ((256, 512), jax.P(None, FSDP)),  # both fit: the largest
    ((520, 257), jax.P(FSDP)),
    ((1028, 513), jax.P(FSDP[:2])),  # 4 of 8 is the most
    ((1028, 514), jax.P(FSDP[:2])),
    ((257, 513), jax.P()),
    ((8, 8), jax.P()),
    ((), jax.P()),
  ],
)
def test_a_state_is_cut_by_the_largest_divisor_that_fits(shape, spec):
  assert spec_of(shape, parallel.make_mesh(fsdp=8)) == spec
  assert spec_of(shape, parallel.make_mesh()) == jax.P()


def test_any_divisor_of_the_devices_cuts_a_state():
  mesh = parallel.make_mesh(jax.devices()[:6], fsdp=6)
  assert dict(mesh.shape) == dict(data=1, fsdp0=2, fsdp1=3)
  assert spec_of((999, 1000), mesh) == jax.P(("fsdp1",))
  assert spec_of((1000, 100), mesh) == jax.P(("fsdp0",))


def test_what_a_device_holds_is_said():
  tree = dict(cut=np.zeros((1024, 1024), np.float32), whole=np.zeros((513, 511), np.float32))
  mesh, mib = parallel.make_mesh(fsdp=4), 513 * 511 * 4 / 2**20
  tree = jax.device_put(tree, parallel.of_state(tree, mesh))
  text = parallel.describe_state(tree, mesh)
  said = (
    f"fsdp 4: {1 + mib:.4g} MiB of state on each device, {mib:.4g} MiB in arrays that are whole"
  )
  assert text.startswith(said)
  held = sum(a.addressable_shards[0].data.nbytes for a in tree.values())
  assert held == pytest.approx((1 + mib) * 2**20)


def slices(count, chips):
  """Devices of a pod's slices, in an order that is not theirs."""
  found = [types.SimpleNamespace(slice_index=i) for i in range(count) for _ in range(chips)]
  return found[::2] + found[1::2]


@pytest.mark.parametrize("gib, fsdp", [(1, 1), (2, 1), (2.1, 2), (10, 8), (40, 32), (1000, 32)])
def test_the_default_is_the_fewest_devices_that_hold_a_state(gib, fsdp):
  size, memory = int(gib * 2**30), 16 * 2**30
  assert parallel.default_fsdp(size, slices(2, 32), memory) == fsdp
  assert parallel.default_fsdp(size, slices(2, 32), None) == 1


def test_slices_share_no_state(monkeypatch):
  monkeypatch.setattr(jax.sharding, "Mesh", lambda devices, *_, **__: devices)
  mesh = parallel.make_mesh(slices(2, 8), fsdp=8)
  assert [{d.slice_index for d in row.flat} for row in mesh] == [{0}, {1}]


@pytest.mark.parametrize("fsdp", [3, 16, -2])
def test_devices_that_cannot_share_are_refused(fsdp):
  with pytest.raises(FieldError) as error:
    parallel.make_mesh(fsdp=fsdp)
  assert (error.value.field, error.value.value) == ("fsdp", fsdp)


def test_groups_never_straddle_devices():
  parallel.check_batch(64, 4, 8)
  with pytest.raises(FieldError, match="batch_size=48.*set objective.group_size=3 or batch_siz"):
    parallel.check_batch(48, 4, 8)
  with pytest.raises(FieldError, match="batch_size=96.*4 x 8 x 2.*=64"):
    parallel.check_batch(96, 4, 8, 2)


def test_micro_batches_are_whole_groups_and_every_row_once():
  x = np.arange(24.0)
  parts = parallel.micro_batches(dict(x=x, cond=dict(label=x[:, None])), 3, 4)
  chex.assert_trees_all_equal(parts["x"], parts["cond"]["label"][..., 0])
  assert parts["x"].shape == (3, 8) and sorted(parts["x"].flat) == list(x)
  groups = parts["x"].reshape(6, 4)
  np.testing.assert_array_equal(groups, groups[:, :1] + np.arange(4))
  assert set(groups[:, 0] % 4) == {0}


def limit_of(name, x):
  """Tokens of the batch; of two streams the numbers in the data, which grouping compares."""
  if name == "two_streams":
    return math.prod(x)
  return x[0] * (math.prod(x[1:-1]) // 4 if name == "dit" else math.prod(x[1:-1]))


def check(name, found):
  x = collectives.experiment_of(name).batch["x"].shape
  assert found and max(found.values()) <= limit_of(name, x), found


@pytest.mark.parametrize(
  "name", ["dit", *(pytest.param(n, marks=pytest.mark.slow) for n in list(collectives.CONFIGS)[1:])]
)
def test_no_activation_leaves_its_device(name):
  check(name, collectives.largest(collectives.experiment_of(name)))


@pytest.mark.slow
def test_nor_on_sixteen_devices():
  command = [sys.executable, "-m", "tests.collectives", "16", *collectives.CONFIGS]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  for name, found in json.loads(done.stdout.splitlines()[-1]).items():
    check(name, found)


@pytest.mark.slow
def test_without_constraints_the_batch_is_gathered(monkeypatch):
  monkeypatch.setattr(parallel, "keep_rows", lambda apply, mesh: apply)
  found = collectives.largest(collectives.experiment_of("dit"))
  assert found["all-gather"] > limit_of("dit", (128, 32, 32, 4))
