"""Rematerialization: what a gradient computes again instead of keeping it, by one name.

The names are levels, each of which keeps less than the one before it:

  none       keeps every intermediate value
  gelu       of an activation keeps its input; in the U-Net, of a GroupNorm and its SiLU
  attention  the same, and of attention keeps queries, keys and values: no logits, no softmax
  block      of a block keeps its inputs, and what `keep` names

Values and gradients are those of "none".
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from dfim.config.errors import FieldError, suggest

NAMES = ("none", "gelu", "attention", "block")
_KEPT = "kept"


@dataclasses.dataclass(frozen=True)
class Remat:
  """The policy `name` for the parts of a block; `looped`: the block is the body of a loop.

  A FieldError names an unknown policy.
  """

  name: str
  looped: bool = False

  def __post_init__(self):
    if self.name not in NAMES:
      fix = f"is unknown: use {', '.join(map(repr, NAMES))}{suggest(str(self.name), NAMES)}"
      raise FieldError("remat", self.name, fix)

  def activation(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays, which keeps its inputs alone from "gelu" on."""
    return self._checkpoint(jax.checkpoint, function, "gelu", "attention", prevent_cse=False)

  def module_activation(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a `function` whose first argument is a module."""
    return self._checkpoint(nn.remat, function, "gelu", "attention", prevent_cse=False)

  def attention(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of queries, keys and values, which keeps them alone from "attention" on."""
    return self._checkpoint(jax.checkpoint, function, "attention", prevent_cse=not self.looped)

  def block(self, module: type[nn.Module], static: int) -> type[nn.Module]:
    """`module`, which keeps its inputs alone with "block"; argument `static` is Python's."""
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    transform = functools.partial(nn.remat, static_argnums=static, policy=policy)
    return self._checkpoint(transform, module, "block", prevent_cse=not self.looped)

  def _checkpoint(
    self, transform: Callable[..., Any], target: Any, *names: str, prevent_cse: bool
  ) -> Any:
    return transform(target, prevent_cse=prevent_cse) if self.name in names else target


def keep(tree: Any) -> Any:
  """Marks small arrays that "block" keeps: what they come from is not gathered a second time."""
  return checkpoint_name(tree, _KEPT)
