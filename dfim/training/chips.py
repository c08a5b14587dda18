"""Figures of accelerators as their makers publish them: the peaks of rooflines and rates."""

import dataclasses

import jax

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """The peaks of one device; rates are a second, and links count what a device sends."""

  flops: float  # dense, in bfloat16
  memory: float  # bytes
  memory_rate: float  # bytes between the memory and the chip
  link_rate: float  # bytes to other devices of a slice, or of a host of GPUs
  network_rate: float | None  # bytes to other slices, or other hosts of GPUs; None: not published
  float32: tuple[int, int, int] = (1, 3, 6)  # times the bfloat16 work, at rising precision

  def passes(self, precision: str) -> int:
    """The work of a product in that of bfloat16: "default", "high" and "highest" are of float32."""
    order = "default", "high", "highest"
    return self.float32[order.index(precision)] if precision else 1


# By the start of a device's `device_kind`; "TPU v5" is v5p. Sources, as of 2026-11-30:
# TPU: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x. "Bidirectional ICI bandwidth" is
# halved, for it counts both directions. The network is that of a host over its chips. A device of
# TPU7x is half a chip, one of v4 a whole one (megacore). v4's links: Jouppi et al., TPU v4,
# arXiv 2304.01433, six of 50 GB/s.
# GPUs: NVIDIA's data sheets of the SXM modules, without sparsity; NVLink halved likewise. The
# network is one adapter a GPU, as in a DGX: 200 Gb/s of A100, else 400 Gb/s. Their float32 is TF32,
# at the highest precision that of the ordinary cores; their memory of 80 GB is 80 GiB.
_CHIPS = {
  "TPU v4": Chip(275e12, 32 * GIB, 1.2e12, 3e11, None),
  "TPU v5 lite": Chip(197e12, 16 * GIB, 8.19e11, 2e11, 3.125e9),
  "TPU v5": Chip(459e12, 95 * GIB, 2.765e12, 6e11, 6.25e9),
  "TPU v6 lite": Chip(918e12, 32 * GIB, 1.6e12, 4e11, 1.25e10),
  "TPU7x": Chip(1153.5e12, 96 * GIB, 3.69e12, 3e11, 6.25e9),
  "NVIDIA A100": Chip(312e12, 80 * GIB, 2.039e12, 3e11, 2.5e10, (2, 2, 16)),
  "NVIDIA H100": Chip(989e12, 80 * GIB, 3.35e12, 4.5e11, 5e10, (2, 2, 15)),
  "NVIDIA H200": Chip(989e12, 141 * GIB, 4.8e12, 4.5e11, 5e10, (2, 2, 15)),
  "NVIDIA B200": Chip(2250e12, 180 * GIB, 8e12, 9e11, 5e10, (2, 2, 30)),
}


def of(device: jax.Device) -> Chip | None:
  """The figures of a device; None of an unknown kind."""
  return next((c for kind, c in _CHIPS.items() if device.device_kind.startswith(kind)), None)


def memory(device: jax.Device) -> float | None:
  """Bytes of a device's memory, as published; None of an unknown kind.

  Not as the device says itself: all processes, and a program compiled without it, must agree.
  """
  chip = of(device)
  return chip.memory if chip else None
