"""Every parameter of a file is used or named; stacked and numbered blocks are the same file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.interop import names
from dfim.models.dit import DiT, positions
from dfim.models.unet import UNet
from tests.data.helpers import assert_equal

DIT = DiT(2, 16, 3, 2, num_classes=3)
SCAN = DIT.clone(scan=True)
UNET = UNet(8, (1, 2), 1, (4,), augment_dim=9)
UNET_SCAN = UNET.clone(blocks=3, scan=True)


def inputs(net, size=4):
  t = jnp.full((2, 1, 1, 1), 0.75)
  x = np.random.default_rng(0).normal(size=(2, size, size, 1)).astype(np.float32)
  return jnp.asarray(x), 0.5 * t, t, {"label": jnp.array([0, -1])}


def wanted(net):
  return jax.eval_shape(net.init, jax.random.key(0), *inputs(net))


def filled(net, seed=0):
  """Parameters without the zeros of an initialisation."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(a.dtype), wanted(net))


@pytest.mark.parametrize(
  "net", [DIT, SCAN, UNET, UNET_SCAN], ids=["dit", "scan", "unet", "unet_scan"]
)
def test_flat_and_back_is_bit_exact(net):
  params = filled(net)
  assert_equal(names.to_params(names.to_arrays(params), wanted(net)), params)


@pytest.mark.parametrize("net", [SCAN, UNET_SCAN], ids=["dit", "unet"])
def test_stacked_and_numbered_blocks_have_the_same_names_and_convert_both_ways(net):
  numbered, stacked = filled(net.clone(scan=False)), filled(net)
  assert numbered["params"].keys() != stacked["params"].keys()
  to = lambda params, net: names.to_params(names.to_arrays(params), wanted(net))
  assert_equal(to(to(numbered, net), net.clone(scan=False)), numbered)
  assert_equal(to(to(stacked, net.clone(scan=False)), net), stacked)
  plain = [
    ".".join(k.key for k in path) for path, _ in jax.tree.leaves_with_path(numbered["params"])
  ]
  assert set(names.to_arrays(stacked)) == set(plain)


ARRAYS = {f"net/{name}": a for name, a in names.to_arrays(filled(DIT)).items()}


@pytest.mark.parametrize("net", [DIT, SCAN], ids=["dit", "scan"])
@pytest.mark.parametrize(
  "name, value, message",
  [
    ("block1.qkv.kernel", None, "our block1.qkv.kernel: absent"),
    ("block2.fc1.bias", np.zeros(63), r"block2.fc1.bias, our .* is \(63,\) .* \(64,\)"),
    ("output.bias", np.array([0, 0, np.nan, 0]), "output.bias, our .*: nan at index 2;"),
    ("output.bias", np.zeros(4, np.int32), "output.bias, our output.bias of int32"),
    ("pos_embed", np.zeros((1, 4, 16)), "pos_embed of shape"),
    ("conv.resample_filter", np.full((1, 1, 4, 4), 1 / 16), "resample_filter of shape"),
    ("blocks.0.attn.qkv.bias", np.zeros(48), "are both our block0.qkv.bias"),
  ],
)
def test_a_parameter_that_does_not_fit_is_named(net, name, value, message):
  arrays = ARRAYS | {f"net/{name}": value}
  arrays = {name: a for name, a in arrays.items() if a is not None}
  with pytest.raises(ValueError, match=message) as error:
    names.to_params(arrays, wanted(net), prefix="net/")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("prefix", ["", "network."])
def test_the_right_prefix_is_suggested(prefix):
  with pytest.raises(ValueError, match="try prefix 'net/'"):
    names.to_params(ARRAYS, wanted(DIT), prefix=prefix)


def test_arrays_outside_the_prefix_are_ignored_and_narrow_weights_widen_exactly():
  arrays = {**names.to_arrays(filled(DIT)), "pos_embed": positions((2, 2), 16).astype("f4")}
  arrays["enc.8x8_down.conv0.resample_filter"] = np.full((1, 1, 2, 2), 0.25, np.float32)
  assert_equal(names.to_params(arrays, wanted(DIT)), filled(DIT))
  arrays = {**ARRAYS, "x": np.full(3, np.nan), "ema/output.bias": np.zeros(7)}
  assert_equal(names.to_params(arrays, wanted(DIT), prefix="net/"), filled(DIT))
  arrays = {name: a.astype(np.float16) for name, a in names.to_arrays(filled(DIT)).items()}
  params = names.to_params(arrays, wanted(DIT))
  assert {a.dtype for a in jax.tree.leaves(params)} == {np.dtype("float32")}
  np.testing.assert_array_equal(params["params"]["input"]["kernel"], arrays["input.kernel"])


def test_layouts_of_torch_are_turned():
  rng = np.random.default_rng(0)
  released = {  # [out, in, height, width], [out, in], [channels]
    "enc.4x4_conv.weight": rng.normal(size=(8, 1, 3, 3)),
    "map_layer0_s.weight": rng.normal(size=(32, 8)),
    "enc.4x4_block0.norm0.weight": rng.normal(size=8),
  }
  ours = names.to_arrays(filled(UNET))
  for name in ("enc_4x4_conv.kernel", "map_s.layer0.kernel", "enc_4x4_block0.norm0.scale"):
    del ours[name]
  params = names.to_params({**ours, **released}, wanted(UNET))["params"]
  conv, linear, norm = released.values()
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
  close(params["enc_4x4_conv"]["kernel"][1, 2, 0, 5], conv[5, 0, 1, 2])
  close(params["map_s"]["layer0"]["kernel"], linear.T)
  close(params["enc_4x4_block0"]["norm0"]["scale"], norm)
