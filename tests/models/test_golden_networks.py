"""The released networks' outputs, from their own parameters (shared/golden/README.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.interop import weights
from dfim.models.df_transformer import ReleasedTransformer
from dfim.models.dit import DiT
from dfim.models.unet import UNet
from tests.conftest import SHARED

pytestmark = pytest.mark.usefixtures("keys_unchecked")

UNET = UNet(32, (1, 2, 2), blocks=2, attention_resolutions=(8,), time_scale=1.0)
UNET_SCAN = UNET.clone(scan=True)
DIT = DiT(width=64, depth=2, heads=4, num_classes=10, time_scale=1.0)
SCAN = DIT.clone(scan=True)
TRANSFORMER = ReleasedTransformer(width=32, depth=2, heads=4, mlp_width=64, time_scale=1.0)


def released(net, file, *args):
  wanted = jax.eval_shape(net.init, jax.random.key(0), *args)
  return weights.load(SHARED / "golden" / file, wanted, prefix="param/")


@pytest.mark.parametrize(
  "net", [UNET, UNET_SCAN, DIT, SCAN], ids=["unet", "unet_scan", "dit", "dit_scan"]
)
def test_agrees_with_the_released_program(net, golden):
  file = "imm_unet_ddpmpp.npz" if isinstance(net, UNet) else "imm_dit.npz"
  data = golden(file)
  s, t = (data[f"cnoise_{u}"].reshape(-1, 1, 1, 1) for u in "st")
  cond = {"label": jnp.where(data["null"], -1, data["labels"])} if "labels" in data else None
  inputs = data["x"].transpose(0, 2, 3, 1), s, t, cond
  out = jax.jit(net.apply)(released(net, file, *inputs), *inputs)
  np.testing.assert_allclose(out.transpose(0, 3, 1, 2), data["out"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_agrees_with_the_released_transformer(causal, golden):
  data = golden("df_transformer.npz")
  tokens_second = lambda a: jnp.asarray(a).swapaxes(0, 1)
  t = tokens_second(data["noise_levels"][..., None] + 1)  # index 0 is the first level above clean
  net, inputs = TRANSFORMER.clone(causal=causal), (tokens_second(data["x"]), t, t)
  out = net.apply(released(net, "df_transformer.npz", *inputs), *inputs)
  expected = data["out_causal" if causal else "out_bidirectional"]
  np.testing.assert_allclose(tokens_second(out), expected, rtol=0, atol=2e-5)
