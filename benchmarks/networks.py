"""The paper's networks: parameters and forward cost beside its table 5, and seconds to compile.

python -m benchmarks.networks                       # counts, in seconds
python -m benchmarks.networks --compile=XL          # also compiles, with and without a scan

Everything is done on shapes: no weights are made. A multiply-add counts as one, as the paper's
GFLOPs do, where XLA counts two operations. Of an image of 32 x 32: latents of ImageNet with 1,000
classes for DiT, pixels of CIFAR-10 for the U-Net; one image.
"""

from collections.abc import Callable
import functools
import math
import pathlib
import time
from typing import Any

from absl import app, flags
import flax.traverse_util
import jax
import jax.extend
import jax.numpy as jnp

from dfim.models import dit, unet

_COMPILE = flags.DEFINE_list("compile", [], "Networks to compile: S, B, L, XL, DDPM++.")
_OUT = flags.DEFINE_string("out", "runs/benchmark_networks/table.md", "Where the tables go.")

PAPER = {  # IMM, table 5: GFLOPs, millions of parameters
  "S": (6.06, 33),
  "B": (23.01, 130),
  "L": (80.71, 458),
  "XL": (118.64, 675),
  "DDPM++": (21.28, 55),
}
SECOND = {"s", "map_s"}  # the MLP of the second time, which DiT and DDPM++ do not have


def main(_) -> None:
  """Prints the tables and writes them."""
  for name in _COMPILE.value:
    if name not in PAPER:
      raise app.UsageError(f"--compile={name}: no such network; there are {', '.join(PAPER)}.")
  jax.config.update("jax_enable_compilation_cache", False)  # a cached program compiles in no time
  text = counts_table() + (f"\n{compile_table(_COMPILE.value)}" if _COMPILE.value else "")
  path = pathlib.Path(_OUT.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  print(text)


def network(name: str, **fields: Any) -> Any:
  """A network of the paper's table 5."""
  if name == "DDPM++":
    return unet.UNet(**fields)
  return dit.DiT(**dit.SIZES[name], num_classes=1000, **fields)


def shapes(net: Any, batch: int = 1) -> tuple[Any, ...]:
  """Shapes of the parameters, then of x, s, t and the condition of `batch` images."""
  array = jax.ShapeDtypeStruct
  time_of = array((batch, 1, 1, 1), jnp.float32)
  x = array((batch, 32, 32, 3 if isinstance(net, unet.UNet) else 4), jnp.float32)
  inputs = x, time_of, time_of, dict(label=array((batch,), jnp.int32))
  return jax.eval_shape(net.init, jax.random.key(0), *inputs), *inputs


def parameters(params: Any) -> tuple[int, int]:
  """How many numbers there are, and how many of them embed the second time."""
  flat = flax.traverse_util.flatten_dict(params)
  second = sum(leaf.size for path, leaf in flat.items() if SECOND & set(path))
  return sum(leaf.size for leaf in flat.values()), second


def multiply_adds(jaxpr: Any) -> int:
  """Of all matrix products and convolutions; a padded edge counts like any other."""
  total = 0
  for eqn in jaxpr.eqns:
    for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
      if _is_jaxpr(inner):
        total += eqn.params.get("length", 1) * multiply_adds(inner)
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      left = eqn.invars[0].aval.shape
      total += eqn.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    elif eqn.primitive.name == "conv_general_dilated":
      kernel, features = eqn.invars[1].aval, eqn.params["dimension_numbers"].rhs_spec[0]
      total += eqn.outvars[0].aval.size * kernel.size // kernel.shape[features]
  return total


def _is_jaxpr(value: Any) -> bool:
  return isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr)


def counts_table() -> str:
  """Parameters and forward cost of each network beside the paper's."""
  lines = [
    "| network | parameters, M | without the second time's MLP | paper"
    " | multiply-adds, G | half of XLA's FLOPs, G | paper, GFLOPs |",
    "|---|--:|--:|--:|--:|--:|--:|",
  ]
  for name, (gflops, millions) in PAPER.items():
    net = network(name)
    args = shapes(net)
    total, second = parameters(args[0])
    exact = multiply_adds(jax.make_jaxpr(net.apply)(*args)) / 1e9
    xla = jax.jit(net.apply).lower(*args).cost_analysis()["flops"] / 2e9
    lines.append(
      f"| {name} | {total / 1e6:.2f} | {(total - second) / 1e6:.2f} | {millions}"
      f" | {exact:.2f} | {xla:.2f} | {gflops} |"
    )
  return "\n".join(lines) + "\n"


def compile_table(names: list[str]) -> str:
  """Seconds to trace and to compile the forward pass, and value and gradient, on this machine."""
  lines = [
    f"{jax.devices()[0].device_kind}, jax {jax.__version__}; seconds to trace + to compile.\n",
    "| network | scan | forward | value and gradient |",
    "|---|---|--:|--:|",
  ]
  for name in names:
    for scan in (True, False) if name in dit.SIZES else (False,):
      net = network(name, **(dict(scan=True) if scan else {}))
      cells = [_seconds(f, shapes(net, batch=4)) for f in (net.apply, gradient(net))]
      lines.append(f"| {name} | {'yes' if scan else 'no'} | {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def gradient(net: Any) -> Callable[..., Any]:
  """Value and gradient of the mean square of G, in training."""
  apply = functools.partial(net.apply, train=True)
  return jax.value_and_grad(lambda params, *inputs: jnp.mean(jnp.square(apply(params, *inputs))))


def _seconds(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
  begin = time.perf_counter()
  lowered = jax.jit(function).lower(*args)
  traced = time.perf_counter()
  lowered.compile()
  return f"{traced - begin:.1f} + {time.perf_counter() - traced:.1f}"


if __name__ == "__main__":
  app.run(main)
