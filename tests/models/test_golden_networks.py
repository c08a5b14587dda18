"""The released networks' outputs, from their own parameters (shared/golden/README.md)."""

import pathlib
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.models.dit import DiT
from dfim.models.released_transformer import ReleasedTransformer
from dfim.models.unet import UNet

GOLDEN = pathlib.Path(__file__).parents[3] / "shared/golden"
RENAME = [  # from the released names to ours, in this order
  (r"^map_layer(\d)_s", r"map_s.layer\1"),
  (r"^map_layer(\d)", r"map_t.layer\1"),
  (r"^(enc|dec)\.", r"\1_"),
  (r"^([st])_embedder\.mlp\.0", r"conditioning.\1.layer0"),
  (r"^([st])_embedder\.mlp\.2", r"conditioning.\1.layer1"),
  (r"^y_embedder.embedding_table.weight", "conditioning.label.table.embedding"),
  (r"^x_embedder.proj", "input"),
  (r"^final_layer.adaLN_modulation.1", "output_modulation.linear"),
  (r"^final_layer.linear", "output"),
  (r"adaLN_modulation.1", "modulation.linear"),
  (r"^transformer\.layers\.(\d+)\.(self_attn\.)?", r"block\1."),
  (r"in_proj_", "qkv."),
  (r"out_proj", "proj"),
  (r"linear([12])", r"fc\1"),
  (r"^init_mlp\.0", "input0"),
  (r"^init_mlp\.2", "input1"),
  (r"^out\.", "output."),
  (r"^blocks\.(\d+)\.(attn\.|mlp\.)?", r"block\1."),
]
UNET = UNet(32, (1, 2, 2), blocks=2, attention_resolutions=(8,), time_scale=1.0)
DIT = DiT(width=64, depth=2, heads=4, num_classes=10, time_scale=1.0)
TRANSFORMER = ReleasedTransformer(width=32, depth=2, heads=4, mlp_width=64, time_scale=1.0)


def converted(data):
  """A flax tree; torch's `[O, I, H, W]` and `[O, I]` become `[H, W, I, O]` and `[I, O]`."""
  tree = {}
  for name in (n for n in data.files if re.match("param/(?!.*(resample_filter|pos_embed))", n)):
    path, value = name.removeprefix("param/"), data[name]
    for pattern, new in RENAME:
      path = re.sub(pattern, new, path)
    *modules, leaf = path.split(".")
    if leaf == "weight":
      leaf = "scale" if value.ndim == 1 else "kernel"
      value = value if leaf == "scale" else np.moveaxis(value, (0, 1), (-1, -2))
    if path == "input.weight":  # a Dense on flattened patches
      value = value.reshape(-1, value.shape[-1])
    tree[(*modules, leaf)] = jnp.asarray(value)
  return {"params": flax.traverse_util.unflatten_dict(tree)}


@pytest.mark.parametrize("net, file", [(UNET, "imm_unet_ddpmpp.npz"), (DIT, "imm_dit.npz")])
def test_agrees_with_the_released_program(net, file):
  if not (GOLDEN / file).exists():
    pytest.skip(f"{GOLDEN / file} is not here")
  data = np.load(GOLDEN / file)
  s, t = (data[f"cnoise_{u}"].reshape(-1, 1, 1, 1) for u in "st")
  cond = {"label": jnp.where(data["null"], -1, data["labels"])} if "labels" in data else None
  out = jax.jit(net.apply)(converted(data), data["x"].transpose(0, 2, 3, 1), s, t, cond)
  np.testing.assert_allclose(out.transpose(0, 3, 1, 2), data["out"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_agrees_with_the_released_transformer(causal, golden):
  data = golden("df_transformer.npz")
  tokens_second = lambda a: jnp.asarray(a).swapaxes(0, 1)
  t = tokens_second(data["noise_levels"][..., None] + 1)  # index 0 is the first level above clean
  out = TRANSFORMER.clone(causal=causal).apply(converted(data), tokens_second(data["x"]), t, t)
  expected = data["out_causal" if causal else "out_bidirectional"]
  np.testing.assert_allclose(tokens_second(out), expected, rtol=0, atol=2e-5)
