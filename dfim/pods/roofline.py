"""The least time that a program takes by the peaks of a chip: an estimate, never a measurement.

Three terms, as if each were all that there is: products at the bfloat16 peak, bytes at the rate of
the memory, collectives at the rate of all links of a chip. A step takes at least the largest; where
nothing overlaps, their sum. Williams, Waterman, Patterson, doi 10.1145/1498765.1498785.
"""

from collections.abc import Sequence
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


def of(counts: counts_lib.Counts, chip: chips.Chip, domains: Sequence[int]) -> Roofline:
  """The terms of one device; `domains` has the slice, or of GPUs the host, of each in the mesh."""
  compute = sum(chip.passes(precision) * flops for precision, flops in counts.products.items())
  links = sum(_seconds(one, chip, domains) for one in counts.collectives)
  return Roofline(compute / chip.flops, counts.memory / chip.memory_rate, links)


def _seconds(one: counts_lib.Collective, chip: chips.Chip, domains: Sequence[int]) -> float:
  """A ring moves the whole result past every chip; an all-reduce scatters first, then gathers.

  Between domains it is as fast as the networks of all its members in one of them together.
  """
  if one.kind == counts_lib.SLICES:
    return one.size / chip.network_rate
  where, rate = [domains[device] for device in one.group], chip.link_rate
  if len(set(where)) > 1:
    rate = min(rate, chip.network_rate * where.count(where[0]))
  return one.size * (2 if one.kind == "all-reduce" else 1) / rate
