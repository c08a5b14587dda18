"""What the makers of accelerators publish of them."""

import jax


def memory(device: jax.Device) -> int | None:
  """Bytes of a device's memory; None for a CPU."""
  return (device.memory_stats() or {}).get("bytes_limit")
