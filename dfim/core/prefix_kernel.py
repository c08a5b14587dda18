"""A kernel of prefixes, the tokens before token i. Source: docs/moment_forcing.md."""

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import grouping

Array = jax.Array


def prefix_similarity(
  x_t: Array,
  *,
  group_size: int,
  inverse_bandwidth: float,
  mean: bool = False,
  streams: int = 1,
  assignment: Array | None = None,
) -> Array:
  """exp(-inverse_bandwidth d) of all pairs of a group, in (0, 1], `[G, T, M, M]`.

  d = sum_{j<i} |x^j - x'^j| / D for tokens of D numbers, or with `mean` its mean over j; conditions
  are not compared. `x_t` is `[B, T, ...]`; the first of two `streams` has the prefixes of both, and
  examples in its rows, also with an `assignment` (`grouping`).
  """
  check_inverse_bandwidth(inverse_bandwidth)
  tokens = x_t.shape[1] // streams
  context = jax.lax.stop_gradient(jnp.asarray(x_t))[:, :tokens]
  position = jnp.arange(tokens).reshape(1, -1, 1, 1)

  def of_token(numbered: tuple[Array, Array]) -> Array:
    i, members = numbered
    cloud = grouping.token_clouds(context[members], group_size)
    return jnp.sum(jnp.where(position < i, _distance(cloud, cloud), 0.0), axis=1)

  if assignment is None:
    groups = context.reshape(-1, group_size, *context.shape[1:])
    distance = jax.vmap(prefix_distance)(groups, groups)
  else:  # a token has its own groups
    each = jax.lax.map(of_token, (jnp.arange(tokens), assignment[:, -tokens:].T))
    distance = jnp.moveaxis(each, 0, 1)
  if mean:
    distance = distance / jnp.maximum(position, 1)
  return jnp.tile(jnp.exp(-inverse_bandwidth * distance), (1, streams, 1, 1))


def prefix_distance(x: Array, others: Array, discount: float = 1.0) -> Array:
  """sum_{j<i} discount^(i-1-j) |x^j - x'^j| / D of `[M, T, ...]` and `[N, T, ...]`: `[T, M, N]`."""
  if not 0.0 <= discount <= 1.0:
    raise FieldError("discount", discount, "set it in [0, 1].")
  each = _distance(*(grouping.token_clouds(a, len(a))[0] for a in (x, others)))
  age = jnp.arange(len(each))[:, None] - 1 - jnp.arange(len(each))[None]
  share = jnp.where(age < 0, 0.0, discount ** jnp.maximum(age, 0)).astype(each.dtype)
  return jnp.tensordot(share, each, axes=1, precision=jax.lax.Precision.HIGHEST)


def check_inverse_bandwidth(inverse_bandwidth: float) -> None:
  """Refuses a negative one: the least similar pairs would count most."""
  if inverse_bandwidth < 0.0:
    raise FieldError("inverse_bandwidth", inverse_bandwidth, "set it to 0 or more.")


def _distance(a: Array, b: Array) -> Array:
  """|x - x'| / D of all pairs, `[..., M, N]` of `[..., M, D]` and `[..., N, D]`."""
  difference = a[..., :, None, :] - b[..., None, :, :]
  return jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1)) / a.shape[-1]
