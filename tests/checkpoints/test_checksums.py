"""Checksums: any change is seen, no layout is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim import parallel
from dfim.checkpoints import checksums

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8, jnp.int8, jnp.bool_]


def sums(**arrays):
  return {k: [int(w) for w in v] for k, v in checksums.checksums(arrays).items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: jnp.dtype(d).name)
def test_every_single_bit_counts(dtype, key):
  x = (3 * jax.random.normal(key, (2, 3))).astype(dtype)
  raw, whole = np.asarray(x), sums(x=x)
  bits = 1 if dtype == jnp.bool_ else 8 * raw.dtype.itemsize
  for at in range(raw.size):
    for bit in range(bits):
      words = raw.copy().reshape(-1).view(f"uint{8 * raw.dtype.itemsize}")
      words[at] ^= 1 << bit
      assert sums(x=jnp.asarray(words.view(raw.dtype).reshape(2, 3))) != whole


def test_places_count_shapes_of_the_same_numbers_and_layouts_do_not(key):
  x = jax.random.normal(key, (4, 6))
  assert sums(x=x) != sums(x=x[::-1])
  assert sums(x=x) == sums(x=x.reshape(24)), "shapes are compared by name"
  assert sums(x=jnp.zeros(3)) != sums(x=-jnp.zeros(3))
  x = jnp.tile(x, (16, 256))
  cut = parallel.of_state(jax.eval_shape(lambda: x), parallel.make_mesh(fsdp=8))
  assert cut.spec != jax.P()
  assert sums(x=x) == sums(x=jax.device_put(x, cut))


def test_64_bits(float64):
  x = jnp.array([1.0, 2.0])
  y = x.at[1].set(np.nextafter(2.0, 3.0))
  assert x.dtype == jnp.float64 and sums(x=x) != sums(x=y)
