"""The groups of a collective, in each of the forms in which XLA writes them."""

import pytest

from dfim.pods import groups, hlo

FORMS = {  # of 16 devices
  "replica_groups={{0,4},{1,5}}, dimensions={0}": (0, 4),
  "replica_groups={}": tuple(range(16)),
  "replica_groups=[4,4]<=[16]": (0, 1, 2, 3),
  "replica_groups=[4,4]<=[4,4]T(1,0), to_apply=%add": (0, 4, 8, 12),
  "replica_groups=[8,2]<=[2,4,2]T(1,2,0)": (0, 8),
  "replica_groups=mesh['a'=2,'b'=8] {'b'}": tuple(range(8)),
  "replica_groups=mesh['a'=2,'b'=8] {'a'}, use_global_device_ids=true": (0, 8),
  "replica_groups=mesh['a'=4,'b'=2,'c'=2] {'a','c'}": (0, 1, 4, 5, 8, 9, 12, 13),
  "replica_groups=mesh['a'=4,'b'=4], device_ids=([4,4]T(1,0)) {'b'}, dimensions={2}": (0, 4, 8, 12),
  "replica_groups=mesh['a'=4,'b'=4], device_ids=([4,4]T(1,0)) {'a'}": (0, 1, 2, 3),
  "source_target_pairs={{0,1},{3,9},{15,14}}": (3, 9),
}


@pytest.mark.parametrize("text", FORMS)
def test_the_first_group_is_found_in_each_form(text):
  line = hlo.Instruction("x", "all-gather", (), (), f"), channel_id=1, {text}")
  assert groups.of(line, 16) == FORMS[text]
