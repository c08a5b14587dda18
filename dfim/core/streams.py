"""Two streams: a sequence stands in the network twice, as context and as what moves.

The law of a token given its past can be carried from time to time by moment matching only while
the past stands still (docs/fusion.md). With two streams it does, for every token at once: token i
of the second stream sees the tokens before i of the first, and itself. The time pattern is
`times.two_stream`; the network takes `streams=2`. Sampling needs one stream.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

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
    ValueError: for another number of streams, or a mask that the objective does not take.
  """
  if "mask" in batch and not padded:
    raise ValueError("data: a batch with a mask, which only objectives.denoising.loss takes.")
  if streams not in (1, 2):
    raise ValueError(f"streams={streams}: set it to 1, or to 2 for a context beside what moves.")
  if streams == 1:
    return apply, batch
  per_token = lambda a: a.ndim >= 3
  twice = lambda a: jnp.concatenate([a, a], axis=1) if per_token(a) else a
  return functools.partial(apply, streams=2), jax.tree.map(twice, batch)
