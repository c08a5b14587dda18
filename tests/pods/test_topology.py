"""Names of topologies; the devices themselves need libtpu, see test_tpu.py."""

import importlib.util
import types

import pytest

from dfim.config.errors import ConfigError, FieldError
from dfim.pods import topology


@pytest.mark.parametrize(
  "name",
  [None, "", "v5e", "v9:2x2", "v5e:", "v5e:2", "v5e:2x2x2", "v5p:4x4", "v5e:32x32", "v5e:0x2"]
  + ["h100:8"],
)
def test_a_name_of_no_slice_is_refused(name):
  with pytest.raises(FieldError) as error:
    topology.devices(name)
  assert error.value.field == "--topology" and "\n" not in str(error.value)


@pytest.mark.parametrize("name,slices", [("v5e:2x2", 0), ("h100:1x2x8", 2)])
def test_slices_that_cannot_be_are_refused(name, slices):
  with pytest.raises(FieldError) as error:
    topology.devices(name, slices)
  assert error.value.field == "--slices"


@pytest.mark.parametrize("name,extra", [("v5e:16x16", "tpu"), ("h100:1x1x8", "cuda12")])
def test_without_a_compiler_one_line_names_the_extra(name, extra, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ConfigError, match=rf"missing.*\[{extra}\]") as error:
    topology.devices(name)
  assert "\n" not in str(error.value)


def test_between_slices_of_tpus_and_between_hosts_of_gpus_is_a_network():
  device = lambda **fields: types.SimpleNamespace(**fields)
  tpus = [device(platform="tpu", slice_index=n, process_index=7) for n in (0, 1)]
  gpus = [device(platform="gpu", slice_index=0, process_index=n) for n in (2, 3)]
  assert topology.domains([*tpus, *gpus]) == [0, 1, 2, 3]
