"""Equal blocks in a loop: which they are, what their stacks are called, and the same function."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.interop import names
from dfim.models.dit import DiT
from dfim.models.layers import stacking
from dfim.models.unet import UNet

pytestmark = pytest.mark.usefixtures("keys_unchecked")


UNET = UNet(4, (1, 2, 2), 2, (2,), heads=2)


def test_runs_are_the_longest_of_equal_kinds():
  rng = np.random.default_rng(0)
  for kinds in [[], [0], *(rng.integers(0, 2, n).tolist() for n in range(2, 20))]:
    runs = stacking.runs(kinds)
    assert [i for run in runs for i in run] == list(range(len(kinds)))
    assert all(len({kinds[i] for i in run}) == 1 for run in runs)
    assert all(kinds[a[-1]] != kinds[b[0]] for a, b in itertools.pairwise(runs))


@pytest.mark.parametrize("prefix", ["", "enc_8x8_"])
def test_the_name_of_a_stack_says_its_blocks(prefix):
  for start, count in itertools.product((0, 1, 9), (2, 3, 12)):
    stack = prefix + stacking.name(range(start, start + count))
    expected = [f"{prefix}block{i}" for i in range(start, start + count)]
    assert stacking.is_stack(stack) and stacking.numbered(stack, count) == expected
  assert not stacking.is_stack(prefix + stacking.name(range(3, 4)))
  assert stacking.numbered(f"{prefix}blocks", 2) == [f"{prefix}block0", f"{prefix}block1"]


def inputs(size):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, size, 1)))
  t = jnp.full((2, 1, 1, 1), 0.75)
  return x, t / 3, t


def shapes(net, *args):
  return jax.eval_shape(net.init, jax.random.key(0), *args)


def stacks(net, size):
  return {n for n in shapes(net, *inputs(size))["params"] if stacking.is_stack(n)}


def test_the_papers_unet_stacks_its_equal_blocks():
  found = stacks(UNet(8, (2, 2, 2), 4, (16,), scan=True), 32)
  encoder = {"enc_32x32_blocks1to3", "enc_16x16_blocks0to3", "enc_8x8_blocks0to3"}
  decoder = {"dec_8x8_blocks0to4", "dec_16x16_blocks0to3", "dec_32x32_blocks0to3"}
  assert found == encoder | decoder


@pytest.mark.parametrize(
  "multipliers, blocks, attention, expected",
  [
    ((1,), 1, (), {"dec_8x8_blocks0to1"}),
    ((1,), 1, (8,), set()),  # the decoder's last block attends
    ((1, 2), 2, (), {"enc_8x8_blocks0to1", "dec_4x4_blocks0to1", "dec_8x8_blocks1to2"}),
    ((2, 1), 2, (4,), {"dec_4x4_blocks0to1"}),
  ],
)
def test_blocks_of_other_channels_or_attention_are_no_stack(
  multipliers, blocks, attention, expected
):
  assert stacks(UNet(4, multipliers, blocks, attention, scan=True), 8) == expected


@pytest.mark.parametrize("remat", ["none", pytest.param("block", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  "plain",
  [UNet(4, (1,), 2, (4,)), DiT(1, 16, 3, 2), pytest.param(UNET, marks=pytest.mark.slow)],
  ids=["unet", "dit", "unet_of_levels"],
)
def test_a_network_of_stacks_is_the_same_function(plain, remat, float64):
  args = inputs(4)
  stacked = plain.clone(scan=True, remat=remat)
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: rng.normal(0, 0.2, p.shape), shapes(plain, *args))
  wanted = jax.tree.map(lambda p: p.update(dtype=jnp.float64), shapes(stacked, *args))

  def value_and_gradient(net, params):
    loss = lambda p: jnp.mean(net.apply(p, *args) ** 2)
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    return value, names.to_arrays(grads)

  value, grads = value_and_gradient(plain, params)
  stacked_params = names.to_params(names.to_arrays(params), wanted)
  stacked_value, stacked_grads = value_and_gradient(stacked, stacked_params)
  largest = max(np.abs(g).max() for g in grads.values())
  assert grads.keys() == stacked_grads.keys() and largest > 1e-3
  np.testing.assert_allclose(stacked_value, value, rtol=1e-12)
  for name, grad in grads.items():
    np.testing.assert_allclose(stacked_grads[name], grad, rtol=1e-12, atol=1e-12 * largest)


class Dropped(nn.Module):
  """The mask of one block."""

  @nn.compact
  def __call__(self, h):
    start = self.param("start", nn.initializers.normal(), (64,))
    return h, (nn.Dropout(0.5, deterministic=False)(jnp.ones(64)), start)


def test_stacked_blocks_start_and_drop_each_by_itself():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, h):
      block = Dropped(name="blocks")
      return stacking.through(lambda b, h, _: b(h), lambda run: block, [0] * 3, h, [None] * 3)[1]

  rngs = dict(params=jax.random.key(0), dropout=jax.random.key(1))
  for parts in zip(*Net().init_with_output(rngs, jnp.zeros(()))[0], strict=True):
    assert len({a.tobytes() for a in map(np.asarray, parts)}) == 3
