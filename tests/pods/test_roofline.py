"""The three terms by hand."""

import pytest

from dfim.pods import counts, hlo, roofline
from dfim.training import chips

CHIP = chips.Chip(flops=100.0, memory=1.0, memory_rate=10.0, link_rate=4.0, network_rate=0.5)


def collective(kind, group=(0, 1)):
  return counts.Collective(kind, (hlo.Array("u8", (6,)),), group, times=2)


def test_terms_are_work_over_peaks_and_an_all_reduce_passes_twice():
  moved = tuple(map(collective, ("all-reduce", "all-gather", counts.SLICES)))
  products = {"": 100, "default": 10, "high": 10, "highest": 10}
  found = roofline.of(counts.Counts(products, 50.0, moved, 0, 0), CHIP, [0, 0])
  assert found.compute == pytest.approx(2.0), "three passes at high precision, six at the highest"
  assert found.memory == 5.0
  assert found.links == pytest.approx(2 * 12 / 4 + 12 / 4 + 12 / 0.5)
  assert found.largest == found.links and found.sum == pytest.approx(7.0 + found.links)


def test_between_hosts_a_collective_has_the_networks_of_those_of_its_group_that_share_one():
  domains = [0, 0, 0, 0, 1, 1, 1, 1]
  of = lambda *group: (
    roofline.of(
      counts.Counts({}, 0.0, (collective("all-gather", group),), 0, 0), CHIP, domains
    ).links
  )
  assert of(0, 1, 2, 3) == pytest.approx(12 / 4)
  assert of(0, 4) == pytest.approx(12 / 0.5)
  assert of(0, 1, 4, 5) == pytest.approx(12 / 1.0)
  assert of(*range(8)) == pytest.approx(12 / 2.0)
