"""Two streams: a sequence stands in the network twice, as context and as what moves.

The law of a token given its past can be carried from time to time by moment matching only while the
past stands still (docs/moment_forcing.md). With two streams it does, for every token at once: token
i of the second stream sees the tokens before i of the first, and itself. The time pattern is
`times.two_stream`; the network takes `streams=2`. Sampling needs one stream.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import conditioning

Array = jax.Array


def lay_out(
  apply: Callable[..., Any], batch: dict[str, Any], streams: int, *, padded: bool = False
) -> tuple[Callable[..., Any], dict[str, Any]]:
  """The network and the batch as an objective is to use them.

  Args:
    apply: the network.
    batch: `x` `[B, T, ...]`, and optionally `mask` and `cond`.
    streams: 1, which changes nothing, or 2.
    padded: whether the objective takes a mask.

  Returns:
    The network told of the streams, and the batch with everything that a token has one of twice
    over: `[B, 2 T, ...]`, context first.

  Raises:
    ValueError: for another number of streams, or a mask that the objective does not take or that
      is none of x.
  """
  mask = batch.get("mask")
  if mask is not None and not padded:
    raise ValueError("data: a batch with a mask, which only objectives.denoising.loss takes.")
  if mask is not None:
    _check_mask(mask, batch["x"].shape)
  if streams not in (1, 2):
    raise ValueError(f"streams={streams}: set it to 1, or to 2 for a context beside what moves.")
  if streams == 1:
    return apply, batch
  if mask is not None:  # may be shared by all tokens
    every = (*mask.shape[:1], batch["x"].shape[1], *mask.shape[2:])
    batch = batch | dict(mask=jnp.broadcast_to(mask, every))
  twice = lambda a: jnp.concatenate([a, a], axis=1) if conditioning.is_per_token(a) else a
  return functools.partial(apply, streams=2), jax.tree.map(twice, batch)


def _check_mask(mask: Array, shape: tuple[int, ...]) -> None:
  shared = all(n in (1, m) for n, m in zip(mask.shape[:2], shape[:2], strict=False))
  ones = len(mask.shape) == len(shape) and set(mask.shape[2:]) <= {1}
  if not (shared and ones and mask.dtype == bool):
    raise ValueError(
      f"data: mask of shape {mask.shape} and dtype {mask.dtype} for x of shape {shape}: give"
      " booleans [B, T, 1, ...], False on padding."
    )
