"""The least time that a program takes by the peaks of a chip: an estimate, never a measurement.

Three terms, as if each were all that there is: products at the bfloat16 peak, bytes at the rate of
the memory, collectives at the rate of the links. A step takes at least the largest; where nothing
overlaps, their sum. Williams, Waterman, Patterson, doi 10.1145/1498765.1498785.
"""

import dataclasses

from dfim.pods import counts as counts_lib
from dfim.training import chips


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of one run of a program."""

  compute: float
  memory: float
  links: float

  @property
  def largest(self) -> float:
    return max(self.compute, self.memory, self.links)

  @property
  def sum(self) -> float:
    return self.compute + self.memory + self.links


def of(counts: counts_lib.Counts, chip: chips.Chip) -> Roofline:
  """The terms of what one device runs."""
  links = sum(_seconds(one, chip) for one in counts.collectives)
  return Roofline(counts.passes / chip.flops, counts.memory / chip.memory_rate, links)


def _seconds(one: counts_lib.Collective, chip: chips.Chip) -> float:
  """A ring moves the whole result past every chip; an all-reduce scatters first, then gathers."""
  if one.kind == counts_lib.SLICES:
    return one.size / chip.network_rate
  return one.size * (2 if one.kind == "all-reduce" else 1) / chip.link_rate
