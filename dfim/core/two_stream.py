"""Two streams: the network sees a sequence twice, as context and as active tokens.

Token i of the second sees the tokens before i of the first, which are held fixed, and itself
(docs/moment_forcing.md). The time pattern is `patterns.two_stream`. Sampling needs one stream.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import (
  conditioning,
  grouping as grouping_lib,
  interpolants,
  posterior as posterior_lib,
  prefixes as prefixes_lib,
)
from dfim.core.scales import Fit, Scales

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OneStream:
  """No context. By default groups are consecutive examples, and x_r is DDIM's of the example.

  x_r lies on the path to the datum of `posterior`, with the noise of `interpolant`, see there.
  """

  streams: ClassVar[int] = 1
  grouping: Callable[..., Array | None] = grouping_lib.contiguous
  posterior: Callable[..., tuple[Array, Array]] = posterior_lib.conditional
  interpolant: Callable[..., Array] = interpolants.same_noise
  reference: int = 1
  scales: Fit | Scales = Fit()

  @property
  def compares(self) -> bool:
    """Whether prefixes are compared, which takes scales and a clean context."""
    rules = (getattr(rule, "func", rule) for rule in (self.grouping, self.posterior))
    return any(getattr(rule, "clean_context", False) for rule in rules)


@dataclasses.dataclass(frozen=True)
class TwoStream(OneStream):
  """How moment matching conditions active tokens on a context that is held fixed.

  Of `core.grouping`, `core.posterior` and `core.interpolants`; `reference` rows are read for each
  row that the network sees (Stable Target Field's reference batch, Xu et al. 2023). `scales` of
  prefixes follow from the first batch by the rule of a `Fit` (`fitted`).
  """

  streams: ClassVar[int] = 2

  def __post_init__(self):
    if self.reference < 1:
      raise FieldError("reference", self.reference, "set it to 1 or more.")
    if self.reference > 1 and self.posterior is posterior_lib.conditional:
      fix = "set it to 1, or posterior.name=core.posterior.minibatch_mean."
      raise FieldError("reference", self.reference, fix)


def of(arguments: Mapping[str, Any]) -> OneStream:
  """The `conditioning` among an objective's arguments, or the default of its `streams`."""
  default = TwoStream() if arguments.get("streams") == 2 else OneStream()
  return arguments.get("conditioning") or default


def fitted(loss: functools.partial, batch: dict[str, Any]) -> functools.partial:
  """The objective `loss` with scales for prefixes such as those of `batch`, all rows of a step."""
  spec = of(loss.keywords)
  if not spec.compares or isinstance(spec.scales, Scales):
    return loss
  prefixes = prefixes_lib.of_batch(lay_out(loss.func, batch, 1)[1])
  sigma_data = loss.keywords["f"].sigma_data
  scales = spec.scales.fit(prefixes, sigma_data=sigma_data, stride=spec.reference)
  spec = dataclasses.replace(spec, scales=scales)
  return functools.partial(loss.func, *loss.args, **loss.keywords | dict(conditioning=spec))


@flax.struct.dataclass
class Given:
  """What moment matching is given: the rows that the network sees, and the reference batch."""

  x: Array  # [B, streams T, ...]
  cond: conditioning.Condition
  dropped: conditioning.Condition  # the conditions that the network sees
  mask: Array | None
  prefixes: prefixes_lib.Prefixes  # with the dropped conditions
  reference: posterior_lib.Reference


def given(spec: OneStream, whole: dict[str, Any], key: Array, drop_rate: float) -> Given:
  """Of all rows that are read, laid out; every `spec.reference`-th is one that the network sees."""
  batch = jax.tree.map(lambda a: a.reshape(-1, spec.reference, *a.shape[1:])[:, 0], whole)
  cond = batch.get("cond")
  absent = conditioning.absent(key, cond, drop_rate)
  dropped = conditioning.without(cond, absent)
  of_batch = functools.partial(prefixes_lib.of_batch, streams=spec.streams)
  conditioned = True if absent is None else ~absent
  reference = posterior_lib.Reference(whole["x"], of_batch(whole), of_batch(batch), conditioned)
  prefixes = of_batch(batch | dict(cond=dropped))
  return Given(batch["x"], cond, dropped, batch.get("mask"), prefixes, reference)


def assign(
  spec: OneStream, key: Array, prefixes: prefixes_lib.Prefixes, group_size: int
) -> Array | None:
  """The example in each slot, `[B, streams T]`, context in its own; None for those of the rows."""
  if spec.compares and not isinstance(spec.scales, Scales):
    raise ValueError("conditioning.scales: not of data yet; pass two_stream.fitted(loss, batch).")
  active = spec.grouping(key, prefixes, group_size=group_size, scales=spec.scales)
  if active is None:
    return None
  rows = jnp.broadcast_to(jnp.arange(len(active))[:, None], active.shape)
  return jnp.concatenate([rows, active], axis=1)


def lay_out(
  apply: Callable[..., Any], batch: dict[str, Any], streams: int
) -> tuple[Callable[..., Any], dict[str, Any]]:
  """Network and batch of an objective; of two `streams`, arrays of tokens are there twice.

  Where the batch's `mask`, bool `[B, T, 1, ...]`, is False, `x` is 0 and conditions are null.
  """
  mask = batch.get("mask")
  if mask is not None:
    check_mask(mask, batch["x"].shape)
    cond = conditioning.hide(batch.get("cond"), mask)
    batch = batch | dict(x=jnp.where(mask, batch["x"], 0.0), cond=cond)
  if streams not in (1, 2):
    raise FieldError("streams", streams, "set it to 1, or to 2 for a context that is held fixed.")
  if streams == 1:
    return apply, batch
  if mask is not None:  # may be shared by all tokens
    every = (*mask.shape[:1], batch["x"].shape[1], *mask.shape[2:])
    batch = batch | dict(mask=jnp.broadcast_to(mask, every))
  twice = lambda a: jnp.concatenate([a, a], axis=1) if conditioning.is_per_token(a) else a
  return functools.partial(apply, streams=2), jax.tree.map(twice, batch)


def check_mask(mask: Array, shape: tuple[int, ...]) -> None:
  """Refuses a mask that does not match `x` of `shape`."""
  shared = all(n in (1, m) for n, m in zip(mask.shape[:2], shape[:2], strict=False))
  ones = len(mask.shape) == len(shape) and set(mask.shape[2:]) <= {1}
  if not (shared and ones and mask.dtype == bool):
    found = f"mask of shape {mask.shape} and dtype {mask.dtype} for x of shape {shape}"
    raise ValueError(f"data: {found}: give booleans [B, T, 1, ...], False on padding.")
