"""Equal consecutive blocks as one loop over stacked parameters, which compiles one of them.

The stack of "block1" to "block3" is "blocks1to3", that of all blocks "blocks"; what comes before
stays, as in "enc_8x8_blocks1to3".
"""

from collections.abc import Callable, Hashable, Sequence
import operator
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_NAME = re.compile(r"(.*)blocks(?:(\d+)to\d+)?")


def runs(forms: Sequence[Hashable]) -> list[range]:
  """The indices of consecutive equal forms."""
  starts = [i for i, form in enumerate(forms) if i == 0 or form != forms[i - 1]]
  return list(map(range, starts, [*starts[1:], len(forms)]))


def name(blocks: range) -> str:
  """The name of a run of blocks: "block0", or "blocks1to3"."""
  return f"block{blocks[0]}" if len(blocks) == 1 else f"blocks{blocks[0]}to{blocks[-1]}"


def is_stack(name: str) -> bool:
  """Whether a module of that name holds a stack of blocks."""
  return _NAME.fullmatch(name) is not None


def numbered(stack: str, count: int) -> list[str]:
  """The names of the `count` blocks in `stack`."""
  match = _NAME.fullmatch(stack)
  start = int(match[2] or 0)
  return [f"{match[1]}block{i}" for i in range(start, start + count)]


def scan(layer: Callable[..., tuple[Any, Any]], length: int) -> Callable[..., tuple[Any, Any]]:
  """`layer(block, h, x) -> (h, y)` over `length` blocks: `(block, h, xs) -> (h, ys)`.

  `block` is a module with the stack's name. Initial values and dropout are each block's own.
  """
  how = dict(variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True})
  return nn.scan(layer, length=length, **how)


def through(
  layer: Callable[..., tuple[Any, Any]],
  make: Callable[[range], nn.Module],
  forms: Sequence[Hashable],
  h: Any,
  xs: Sequence[Any],
) -> tuple[Any, list[Any]]:
  """`layer(block, h, x) -> (h, y)` from block to block, with one form and one x each: `h, ys`.

  Consecutive blocks of equal form are a stack. `make` gives the module of a run of blocks.
  """
  ys = []
  for run in runs(forms):
    if len(run) == 1:
      h, y = layer(make(run), h, xs[run[0]])
      ys.append(y)
    else:
      stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *(xs[i] for i in run))
      h, y = scan(layer, len(run))(make(run), h, stacked)
      ys += [jax.tree.map(operator.itemgetter(i), y) for i in range(len(run))]
  return h, ys
