"""Chips are found by the start of their kind, and their figures are in the units that we state."""

import types

import jax
import pytest

from dfim.training import chips


def of(kind):
  return chips.of(types.SimpleNamespace(device_kind=kind))


def test_a_kind_is_found_by_its_start():
  assert of("NVIDIA H200").flops == 989e12 and of("NVIDIA A100-SXM4-80GB").flops == 312e12
  assert of("TPU v5 lite").flops == 197e12 and of("TPU v5").flops == of("TPU v5p").flops == 459e12
  assert 2 * of("TPU7x").flops == 2307e12, "two devices a chip"
  assert of("cpu") is None


def test_memory_is_that_of_the_kind():
  assert chips.memory(types.SimpleNamespace(device_kind="GPU")) is None
  assert chips.memory(types.SimpleNamespace(device_kind="TPU v5 lite")) == 16 * 2**30
  assert chips.memory(jax.devices()[0]) is None


def test_float32_costs_more_than_bfloat16_as_precision_rises():
  tpu, gpu = of("TPU v5 lite"), of("NVIDIA H100")
  order = ("", "default", "high", "highest")
  assert [tpu.passes(p) for p in order] == [1, 1, 3, 6]
  assert [gpu.passes(p) for p in order] == [1, 2, 2, 15], "TF32, and 67 TFLOP/s without"


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x"])
def test_memory_is_slower_than_products_and_links_slower_than_memory(kind):
  """In FLOPs, bytes and seconds; a product needs 100 to 1,000 FLOPs a byte to be worth it."""
  chip = of(kind)
  assert 100 < chip.flops / chip.memory_rate < 1000
  assert 2 < chip.memory_rate / chip.link_rate < 15
  assert 0.01 < chip.memory / chip.memory_rate < 0.05, "seconds to read all of it"
