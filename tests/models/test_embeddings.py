"""Sinusoids of times: as exact as their dtype, and so are their slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.models.layers import embeddings

pytestmark = pytest.mark.usefixtures("keys_unchecked")

WIDTH, EACH = 64, [embeddings.dit_sinusoids, embeddings.ddpm_sinusoids]


def exact(sinusoids, t, scale):
  """In float64 NumPy, of the very same times: values and slopes."""
  ddpm = sinusoids is embeddings.ddpm_sinusoids
  speed = scale * embeddings.frequencies(WIDTH // 2, endpoint=ddpm)
  angle = np.float64(t) * speed
  sin, cos = np.sin(angle), np.cos(angle)
  values, slopes = (sin, cos) if ddpm else (cos, sin), (cos, -sin) if ddpm else (-sin, cos)
  return np.concatenate(values, axis=-1), np.concatenate([a * speed for a in slopes], axis=-1)


@pytest.mark.parametrize("sinusoids", EACH)
@pytest.mark.parametrize("scale, largest", [(1000.0, 1.0), (1.0, 1000.0), (3000.0, 1e-3)])
def test_angles_lose_nothing_to_the_scale_of_times(sinusoids, scale, largest):
  """A product rounded to float32 is off by 3e-5 at 1000 t = 990."""
  t = np.float32(largest * np.random.default_rng(0).uniform(size=(500, 1)))
  values, slopes = exact(sinusoids, t, scale)
  function = lambda t: sinusoids(t, scale, WIDTH)
  found, slope = jax.jit(lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),)))(t)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, values, rtol=0, atol=5e-7)
  np.testing.assert_allclose(slope, slopes, rtol=0, atol=5e-7 * scale)
  weights = np.random.default_rng(1).normal(size=slopes.shape)
  grad = jax.grad(lambda t: jnp.sum(weights * function(t)))(t)
  size = scale * np.abs(weights).sum(-1, keepdims=True)
  np.testing.assert_allclose(
    grad / size, np.sum(weights * slopes, -1, keepdims=True) / size, atol=5e-7
  )


@pytest.mark.parametrize("sinusoids", EACH)
def test_angles_of_float64_are_those_of_float64(sinusoids, float64):
  t = np.random.default_rng(0).uniform(size=(500, 1))
  found = sinusoids(jnp.asarray(t), 1000.0, WIDTH)
  assert found.dtype == jnp.float64
  np.testing.assert_allclose(found, exact(sinusoids, t, 1000.0)[0], rtol=0, atol=5e-13)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_times_become_float32(dtype):
  t = jnp.asarray([[0.25], [0.75]], dtype)
  wide = embeddings.dit_sinusoids(t.astype(jnp.float32), 1000.0, WIDTH)
  np.testing.assert_array_equal(embeddings.dit_sinusoids(t, 1000.0, WIDTH), wide)
