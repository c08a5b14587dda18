"""A limit on steps whose loss, gradient or update is not finite."""

import collections

import jax


class NonFiniteError(FloatingPointError):
  """Numbers that are not finite in too many steps, in samples or in exported weights."""


class Guard:
  """Counts failed steps in a row; the host waits for a step only after a failure.

  Otherwise it reads results that are ready, and waits for those `AHEAD` steps back. So every
  process knows of `LIMIT` failures in a row right after the last, before the state has changed.
  """

  LIMIT, AHEAD = 10, 8  # steps; AHEAD is less

  def __init__(self, skipped: int, taken: int):
    """`skipped` and `taken` are the state's counts of steps where the run starts."""
    self._skipped, self._taken, self.running = skipped, taken, 0
    self._unseen: collections.deque[jax.Array] = collections.deque()

  def failed(self, skipped: jax.Array, *, last: bool = False) -> bool:
    """Whether the last `LIMIT` steps all failed, or, after the last step, all steps of the run.

    `skipped` is the count after this step.
    """
    self._unseen.append(skipped)
    while self._unseen and (
      last or self.running or len(self._unseen) > self.AHEAD or self._unseen[0].is_ready()
    ):
      now = int(self._unseen.popleft())
      self.running = self.running + 1 if now > self._skipped else 0
      self._taken += now == self._skipped
      self._skipped = now
    return self.running >= self.LIMIT or (last and self._taken == 0)
