"""Names of topologies; the devices themselves need libtpu, see test_tpu.py."""

import importlib.util

import pytest

from dfim.config.errors import ConfigError, FieldError
from dfim.pods import topology


@pytest.mark.parametrize(
  "name",
  [None, "", "v5e", "v9:2x2", "v5e:", "v5e:2", "v5e:2x2x2", "v5p:4x4", "v5e:32x32", "v5e:0x2"],
)
def test_a_name_of_no_slice_is_refused(name):
  with pytest.raises(FieldError) as error:
    topology.devices(name)
  assert error.value.field == "--topology" and "\n" not in str(error.value)


def test_no_slices_are_refused():
  with pytest.raises(FieldError) as error:
    topology.devices("v5e:2x2", slices=0)
  assert error.value.field == "--slices"


def test_without_libtpu_one_line_names_the_extra(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ConfigError, match=r"libtpu.*\[tpu\]") as error:
    topology.devices("v5e:16x16")
  assert "\n" not in str(error.value)
