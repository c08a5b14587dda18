"""Batches of arrays in memory, and the contract that every data source keeps.

A source is `source(batch_size, seed, start=0, *, process=(0, 1), ...) -> iterator` of
`dict(x=float32 [B, ...], cond=dict(label=int32 [B]))`, without `cond` where nothing conditions.
Batch n depends on (seed, n) alone, so `start=n` equals skipping n batches, bit for bit;
`process=(index, count)` yields rows `index` of `count` equal parts of it. Each source has a `load`
of a whole split.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Process = tuple[int, int]  # (index, count)

_BLOCK_EXAMPLES = 8192  # generated at once, see `drawn`


@dataclasses.dataclass(eq=False)
class Batches:
  """Endless batches of a finite set of `size` examples, and its sorted `labels`, if any.

  `examples` gives those of numbers `[n]` as stored: a tree of arrays, without augmentation.
  """

  batches: Iterator[Any]
  size: int
  examples: Callable[[np.ndarray], Any]
  labels: np.ndarray | None = None

  def __iter__(self) -> "Batches":
    return self

  def __next__(self) -> Any:
    return next(self.batches)

  def close(self) -> None:
    """Ends threads and processes that read ahead."""
    if hasattr(self.batches, "close"):
      self.batches.close()


def batches(
  arrays: Any, batch_size: int, seed: int, start: int = 0, *, process: Process = (0, 1)
) -> Batches:
  """Endless batches `[B / count, ...]` of the rows of `arrays`, a tree of arrays `[N, ...]`."""
  sizes = {len(a) for a in jax.tree.leaves(arrays)}
  if len(sizes) != 1:
    raise ValueError(f"data: arrays must share their first axis, but have lengths {sorted(sizes)}")
  size = sizes.pop()
  take = rows(size, batch_size, seed, process=process)
  examples = lambda i: jax.tree.map(operator.itemgetter(i), arrays)
  labels = arrays.get("label", arrays.get("cond", {}).get("label"))
  occurring = None if labels is None else np.unique(labels)
  return Batches(map(examples, map(take, count_from(start))), size, examples, occurring)


def rows(
  size: int, batch_size: int, seed: int, *, process: Process = (0, 1)
) -> Callable[[int], np.ndarray]:
  """A function from n to the rows `[B / count]` of batch n; epochs are permutations."""
  if size < 1:
    raise ValueError("data: there is no example")
  part = share(batch_size, process)

  @functools.lru_cache(maxsize=2)  # of the epochs that a batch may straddle
  def permutation(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)

  def take(n: int) -> np.ndarray:
    epoch, offset = np.divmod(n * batch_size + np.arange(batch_size)[part], size)
    return np.concatenate([permutation(int(e))[offset[epoch == e]] for e in np.unique(epoch)])

  return take


def drawn(
  distribution: Callable[..., Any], batch_size: int, seed: int, start: int, process: Process
) -> Iterator[dict[str, Any]]:
  """Endless batches of `distribution(key)`, in blocks dispatched ahead of use.

  It returns a batch, such as `dict(x=..., cond=...)` of arrays `[B, ...]`, or `x` alone.
  """
  part, key = share(batch_size, process), jax.random.key(seed)
  count = max(1, _BLOCK_EXAMPLES // batch_size)  # batches in a block
  generate = jax.vmap(lambda n: distribution(jax.random.fold_in(key, n)))
  block = lambda i: generate(i * count + jnp.arange(count))

  def stream(numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    following = block(start // count)
    for n in numbers:
      if n == start or n % count == 0:
        current, following = following, block(n // count + 1)
      batch = jax.tree.map(lambda a: np.asarray(a)[n % count, part], current)  # noqa: B023
      yield batch if isinstance(batch, dict) else dict(x=batch)

  return stream(count_from(start))


def share(batch_size: int, process: Process) -> slice:
  """The rows of the global batch that process `(index, count)` holds."""
  index, count = process
  if not 0 <= index < count:
    raise ValueError(f"data.process: index {index} is not one of {count} processes")
  if batch_size < 1 or batch_size % count:
    raise ValueError(f"batch_size: {batch_size} is no positive multiple of {count} processes")
  return slice(index * batch_size // count, (index + 1) * batch_size // count)


def evenly_spread(count: int, size: int) -> np.ndarray:
  """The numbers `[size]` of examples that are evenly spread over `count`, both ends included."""
  return np.linspace(0, count - 1, size).round().astype(int)


def count_from(start: int) -> Iterator[int]:
  """start, start + 1, ...: the numbers of the batches after the first `start`."""
  if start < 0:
    raise ValueError(f"start: {start} batches cannot be skipped")
  return itertools.count(start)


def check_split(split: Any, splits: Iterable[str]) -> None:
  """Raises ValueError where a set has no such split."""
  if split not in tuple(splits):
    raise ValueError(f"data.split: {split!r} is not one of {', '.join(splits)}")
