"""NFE: network evaluations of one sample, the unit in which samplers are compared.

Each step down the grid evaluates the network once, and twice under classifier-free guidance, whose
batch is doubled. A rollout with a cache evaluates it once more for each chunk, to write the cache.
"""

from typing import Any

import numpy as np


def of_steps(steps: int, *, guidance: float = 1.0) -> int:
  """NFE of a whole example that is drawn in `steps` grid steps."""
  return steps * (1 if guidance == 1.0 else 2)


def of_token(
  steps: int, levels: Any, *, chunk: int, cached: bool = False, guidance: float = 1.0
) -> float:
  """NFE of a rollout, divided by the tokens that it draws; see `rollout.Rollout`."""
  rows = len(levels(steps, chunk) if callable(levels) else np.asarray(levels))
  return (of_steps(rows - 1, guidance=guidance) + cached) / chunk
