"""The NVIDIA H100 SXM as XLA wants it described, by what NVIDIA publishes of it.

Sources: the H100 data sheet (80 GB, 3.35 TB/s); the whitepaper of the Hopper architecture (132
multiprocessors, 256 KiB of L1 each with up to 228 KiB shared, 50 MB of L2, boost of 1.98 GHz); the
CUDA C++ programming guide, technical specifications of compute capability 9.0 (all limits).
"""

_DEVICE = dict(
  name="NVIDIA H100 80GB HBM3",
  device_vendor="NVIDIA Corporation",
  platform_version="Compute Capability 9.0",
  device_memory_size=80 * 2**30,
  memory_bandwidth=3_350_000_000_000,
  pcie_bandwidth=64_000_000_000,
  clock_rate_ghz=1.98,
  l2_cache_size=50 * 2**20,
  core_count=132,
  fpus_per_core=128,
  threads_per_warp=32,
  threads_per_block_limit=1024,
  threads_per_core_limit=2048,
  thread_dim_limit_x=1024,
  thread_dim_limit_y=1024,
  thread_dim_limit_z=64,
  block_dim_limit_x=2**31 - 1,
  block_dim_limit_y=2**16 - 1,
  block_dim_limit_z=2**16 - 1,
  registers_per_core_limit=2**16,
  registers_per_block_limit=2**16,
  shared_memory_per_core=228 * 2**10,
  shared_memory_per_block_optin=227 * 2**10,
  shared_memory_per_block=48 * 2**10,
  device_address_bits=64,
  cuda_compute_capability=dict(major=9, minor=0),
  driver_version="12.8.0",
  runtime_version="12.8.0",
  compile_time_toolkit_version="12.8.0",
  dnn_version="9.10.0",
)


def _text(fields: dict[str, object]) -> str:
  """A protocol buffer's text form."""
  quoted = lambda value: f'"{value}"' if isinstance(value, str) else value
  part = lambda name, value: (
    f"{name} {{ {_text(value)} }}" if isinstance(value, dict) else f"{name}: {quoted(value)}"
  )
  return " ".join(part(*field) for field in fields.items())


TARGET = _text(
  dict(
    gpu_device_info=_DEVICE,
    platform_name="CUDA",
    dnn_version_info=dict(major=9, minor=10),
    device_description_str="NVIDIA H100 80GB HBM3",
  )
)
