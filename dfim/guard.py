"""Notices steps whose loss or gradient is not finite, and when there are too many running."""

import collections

import jax


class NonFiniteError(FloatingPointError):
  """Too many steps running had a loss or gradient that was not finite."""


class Guard:
  """Counts failed steps in a row without making the host wait for every step.

  While all is well it looks at what is computed already, and waits only for what lies `AHEAD` steps
  back; after one failure it waits for every step. So the host knows of `LIMIT` failures in a row
  right after the last, in every process of many, and the state is still that of before the first.
  """

  LIMIT, AHEAD = 10, 8  # steps; AHEAD is less

  def __init__(self, skipped: int):
    """`skipped` is the state's count where the run stands."""
    self._skipped, self._running = skipped, 0
    self._unseen: collections.deque[jax.Array] = collections.deque()

  def failed(self, skipped: jax.Array) -> bool:
    """Whether the last `LIMIT` steps all failed; `skipped` is the count after this one."""
    self._unseen.append(skipped)
    while self._unseen and (
      self._running or len(self._unseen) > self.AHEAD or self._unseen[0].is_ready()
    ):
      now = int(self._unseen.popleft())
      self._running = self._running + 1 if now > self._skipped else 0
      self._skipped = now
    return self._running >= self.LIMIT
