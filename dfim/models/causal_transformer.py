"""A causal transformer over tokens with a noise level each, and its cache of keys and values.

Pre-norm blocks, adaLN-Zero per token (History-Guided Video Diffusion 2502.06764), rotary positions.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import adaln, attention, embeddings, linear, norms

Array = jax.Array
PRECISIONS = ("default", "high", "highest")
_CONDITION = "condition_"  # and its name: a condition's parameters


@flax.struct.dataclass
class Cache:
  """Keys, turned to their positions, and values of the last S tokens, `[depth, B, S, heads, d]`."""

  keys: Array
  values: Array
  length: Array  # int32, tokens seen so far; the first S - length slots are empty


class CausalTransformer(nn.Module):
  """(x, s, t, cond) -> G for tokens `[B, T, D]` with a time each.

  Conditions: `label [B]`, and by any name those of every kind in `core.conditioning`, each embedded
  by a layer of its own. Init fixes their names; one that is left out is null.

  `time_precision` is that of the time path (`layers.linear`), which has a row for each token and a
  third of a block's products: "default", "high" or "highest" are 1, 3 or 6 bfloat16 passes on a
  TPU, and TF32, TF32 or float32 on a GPU.
  """

  width: int = 128
  depth: int = 4
  heads: int = 4
  mlp_ratio: int = 4
  causal: bool = True
  window: int | None = None  # tokens that a token attends to, itself included; None: all
  num_classes: int = 0
  dropout: float = 0.0
  second_time: str = "s"
  time_scale: float = 1000.0
  dtype: str | None = None
  vocabulary: int = 256  # values 0 .. vocabulary - 1 of a discrete condition, such as an action
  time_precision: str = "high"

  @nn.compact
  def __call__(
    self,
    x: Array,
    s: Array,
    t: Array,
    cond: embeddings.Cond = None,
    *,
    train: bool = False,
    cache: Cache | None = None,
    streams: int = 1,
  ) -> Array | tuple[Array, Cache]:
    """`x [B, T, D]`, times `[B, T, 1]` -> G in float32, or float64 where x is.

    With a cache, `x` follows its tokens, and the cache with x and without its oldest tokens is
    returned too. With two streams (`core.two_stream`), `x [B, 2 T, D]` repeats its positions.
    """
    self._check(x, s, t, cache, streams)
    conditioning.check(cond, x.shape)
    past = 0 if cache is None else cache.keys.shape[2]
    start = 0 if cache is None else cache.length
    position = start + jnp.arange(-past, x.shape[1] // streams)  # of the cached tokens, then of x
    mask = visible(position[past:], position, causal=self.causal, window=self.window)
    if streams == 2:
      position, mask = jnp.tile(position, 2), in_two_streams(mask)
    turn = rotation(position[past:], self.width // self.heads)
    emb = self._embed(x, s, t, cond)
    h = linear.dense(self.width, self.dtype, "input")(x)
    fresh = []
    for i in range(self.depth):
      fields = self.heads, self.mlp_ratio, self.dropout, self.dtype, self.time_precision
      block = Block(*fields, name=f"block{i}")
      cached = None if cache is None else (cache.keys[i], cache.values[i])
      h, keys_values = block(h, emb, turn, mask, cached, train)
      fresh.append(keys_values)
    out = adaln.output(h, emb, x.shape[-1], self.dtype, self.time_precision)
    out = out.astype(linear.at_least_float32(out))
    return out if cache is None else (out, _extended(cache, fresh, x.shape[1]))

  def empty_cache(self, batch: int, size: int | None = None, dtype: str = "float32") -> Cache:
    """A cache without tokens, of `size` slots: by default all that a `window` can see."""
    if size is None and self.window is None:
      raise ValueError("model.window=None: give the cache a size, or the network a window.")
    size = self.window - 1 if size is None else size
    zeros = jnp.zeros((self.depth, batch, size, self.heads, self.width // self.heads), dtype)
    return Cache(keys=zeros, values=zeros, length=jnp.zeros((), jnp.int32))

  def _embed(self, x: Array, s: Array, t: Array, cond: embeddings.Cond) -> Array:
    fields = self.width, self.num_classes, self.second_time, self.time_scale
    given = dict(precision=self.time_precision, name="conditioning")
    emb = embeddings.Conditioning(*fields, **given)(s, t, cond)
    for name, array in sorted(self._with_null(x, cond).items()):
      embedded = self._embed_condition(f"{_CONDITION}{name}", array)
      emb = emb + (embedded if embedded.ndim == 3 else embedded[:, None])
    return emb

  def _embed_condition(self, name: str, array: Array) -> Array:
    """`[..., W]` of vectors `[..., C]` or of values `[...]`, of which -1 becomes 0."""
    if not conditioning.is_discrete(array):
      init = nn.initializers.lecun_normal()
      return linear.time_dense(self.width, init, name, precision=self.time_precision)(array)
    value, init = conditioning.as_index(array), nn.initializers.normal(0.02)  # as of labels
    table = nn.Embed(self.vocabulary, self.width, embedding_init=init, name=name)
    return jnp.where(value[..., None] < 0, 0.0, table(jnp.maximum(value, 0)))

  def _with_null(self, x: Array, cond: embeddings.Cond) -> dict[str, Array]:
    given = {name: array for name, array in (cond or {}).items() if name != "label"}
    if self.is_initializing():
      return given
    own = [n for n in self.variables.get("params", {}) if n.startswith(_CONDITION)]
    layers = {n.removeprefix(_CONDITION): self.variables["params"][n] for n in own}
    sizes = {n: p["kernel"].shape[0] if "kernel" in p else 0 for n, p in layers.items()}
    for name, array in given.items():
      if sizes.get(name) != (0 if conditioning.is_discrete(array) else array.shape[-1]):
        known = [f"{n} ({f'vectors of {c}' if c else 'integers'})" for n, c in sizes.items()]
        fix = f"the network was initialised with {', '.join(known) or 'labels alone'}."
        raise ValueError(f"cond.{name} of {conditioning.describe(array)}: {fix}")
    vectors = lambda size: jnp.zeros((*x.shape[:2], size), x.dtype)
    values = -jnp.ones(x.shape[:2], int)
    return {name: vectors(size) if size else values for name, size in sizes.items()} | given

  def _check(self, x: Array, s: Array, t: Array, cache: Cache | None, streams: int) -> None:
    embeddings.check_sequence(x, s, t)
    if self.width % (2 * self.heads):
      raise FieldError("model.width", self.width, f"is no multiple of 2 x heads = {2 * self.heads}")
    if self.vocabulary < 1:
      raise FieldError("model.vocabulary", self.vocabulary, "set it to 1 or more")
    if self.time_precision not in PRECISIONS:
      raise FieldError("model.time_precision", self.time_precision, f"is none of {PRECISIONS}")
    if self.window is not None and self.window < 1:
      raise FieldError("model.window", self.window, "set it to 1 or more, or None for all tokens")
    if cache is not None and not self.causal:
      raise ValueError("model.causal=False: only a causal network can keep a cache of its past")
    if streams == 2 and (cache is not None or not self.causal):
      raise ValueError("streams=2: takes model.causal=True, and no cache")


class Block(nn.Module):
  """Attention and an MLP, each modulated and gated per token."""

  heads: int
  mlp_ratio: int
  dropout: float
  dtype: str | None
  time_precision: str

  @nn.compact
  def __call__(
    self,
    h: Array,
    emb: Array,
    turn: tuple[Array, Array],
    mask: Array,
    cached: tuple[Array, Array] | None,
    train: bool,
  ) -> tuple[Array, tuple[Array, Array]]:
    """Tokens `[B, T, W]` to tokens, and their keys and values `[B, T, heads, d]`."""
    modulation = adaln.Modulation(6, h.shape[-1], self.time_precision, name="modulation")(emb)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
    drop = nn.Dropout(self.dropout, deterministic=not train)

    modulated = norms.modulated(h, shift_a, scale_a)
    q, k, v = attention.queries_keys_values(modulated, self.heads, self.dtype)
    q, k = rotate(q, turn), rotate(k, turn)
    keys, values = k, v
    if cached is not None:
      keys, values = (jnp.concatenate(pair, axis=1) for pair in zip(cached, (k, v), strict=True))
    mixed = attention.attention(q, keys, values, mask)
    h = adaln.gated(h, gate_a, drop(linear.dense(h.shape[-1], self.dtype, "proj")(mixed)))
    modulated = norms.modulated(h, shift_m, scale_m)
    update = drop(linear.gelu_mlp(modulated, self.mlp_ratio, self.dtype))
    return adaln.gated(h, gate_m, update), (k, v)


def visible(query: Array, key: Array, *, causal: bool, window: int | None) -> Array:
  """Who sees whom, bool `[Q, K]`, by position; a negative position is an empty slot."""
  behind = query[:, None] - key[None, :]
  seen = (key >= 0)[None, :] & jnp.ones_like(behind, bool)
  if causal:
    seen &= behind >= 0
  if window is not None:
    seen &= jnp.abs(behind) < window
  return seen


def in_two_streams(past: Array) -> Array:
  """From bool `[T, T]`, who sees whom in one stream, to `[2 T, 2 T]`, see `core.two_stream`."""
  itself = jnp.eye(len(past), dtype=bool)
  return jnp.block([[past, jnp.zeros_like(past)], [past & ~itself, itself]])


def rotation(position: Array, width: int) -> tuple[Array, Array]:
  """Cosines and sines `[1, T, 1, width / 2]` of rotary positions (RoFormer 2104.09864)."""
  angle = position[:, None] * jnp.asarray(embeddings.frequencies(width // 2), jnp.float32)[None]
  return jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]


def rotate(x: Array, turn: tuple[Array, Array]) -> Array:
  """Turns each pair of features of `[B, T, heads, d]`: halves apart, as GPT-NeoX pairs them."""
  cos, sin = (a.astype(x.dtype) for a in turn)
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _extended(cache: Cache, fresh: list[tuple[Array, Array]], tokens: int) -> Cache:
  keys, values = (jnp.stack(a) for a in zip(*fresh, strict=True))
  last = lambda old, new: jnp.concatenate([old, new.astype(old.dtype)], 2)[:, :, tokens:]
  return Cache(last(cache.keys, keys), last(cache.values, values), cache.length + tokens)
