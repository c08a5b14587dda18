"""The three terms by hand."""

import pytest

from dfim.pods import counts, hlo, roofline
from dfim.training import chips

CHIP = chips.Chip(flops=100.0, memory=1.0, memory_rate=10.0, link_rate=4.0, network_rate=0.5)


def test_terms_are_work_over_peaks_and_an_all_reduce_passes_twice():
  array = (hlo.Array("u8", (6,)),)
  kinds = ("all-reduce", "all-gather", counts.SLICES)
  moved = tuple(counts.Collective(kind, array, (0, 1), times=2) for kind in kinds)
  found = roofline.of(counts.Counts(70.0, 300.0, 50.0, moved, 0, 0), CHIP)
  assert found.compute == 3.0, "of the passes, not of the FLOPs"
  assert found.memory == 5.0
  assert found.links == pytest.approx(2 * 12 / 4 + 12 / 4 + 12 / 0.5)
  assert found.largest == found.links and found.sum == pytest.approx(8.0 + found.links)
