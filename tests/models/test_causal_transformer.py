"""The transformer of sequences: exact causality, its band, and a cache that equals one pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import conditioning, two_stream as streams_lib
from dfim.models.causal_transformer import CausalTransformer

pytestmark = pytest.mark.usefixtures("keys_unchecked")

NET = CausalTransformer(width=16, depth=3, heads=2)
BATCH, TOKENS, DIM = 2, 10, 3


def inputs():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(BATCH, TOKENS, DIM)), jnp.float32)
  s, t = (jnp.asarray(rng.uniform(size=(BATCH, TOKENS, 1)), jnp.float32) for _ in range(2))
  return x, s, t, {"action": jnp.asarray(rng.normal(size=(BATCH, TOKENS, 2)), jnp.float32)}


def perturbed(net, args=None):
  """Parameters without the zeros of an initialisation, under which all outputs are 0."""
  rng = np.random.default_rng(1)
  noise = lambda p: jnp.asarray(rng.normal(0, np.prod(p.shape[:-1]) ** -0.5, p.shape), jnp.float32)
  return jax.tree.map(noise, jax.eval_shape(net.init, jax.random.key(0), *(args or inputs())))


KINDS = dict(  # of conditions besides action, for BATCH examples of TOKENS tokens
  button=lambda rng: rng.integers(0, 4, (BATCH, TOKENS)),
  flag=lambda rng: rng.random((BATCH, TOKENS)) < 0.5,
  goal=lambda rng: rng.normal(size=(BATCH, 4)).astype(np.float32),
  skill=lambda rng: np.array([3, 0], np.uint8),
)


def of_every_kind(net):
  *args, cond = inputs()
  rng = np.random.default_rng(0)
  cond = cond | {name: draw(rng) for name, draw in KINDS.items()} | dict(label=np.array([1, -1]))
  return perturbed(net, (*args, cond)), args, cond


def influence(net, argument, **given):
  """Gradient sizes `[T, T]`: how token i's output depends on what token j is given."""
  params, args = perturbed(net), list(inputs())

  def outputs(a):
    args[argument] = a
    return jnp.sum(jax.jit(functools.partial(net.apply, **given))(params, *args), axis=(0, 2))

  slope = jax.jacobian(outputs)(args[argument])
  return jax.tree.map(lambda a: np.abs(a).sum(axis=(1, 3)), slope)


@pytest.mark.parametrize("argument", range(4), ids=["x", "s", "t", "action"])
def test_no_token_sees_a_later_one_its_times_or_its_condition_unless_bidirectional(argument):
  (found,) = jax.tree.leaves(influence(NET, argument))
  np.testing.assert_array_equal(np.triu(found, 1), 0.0)
  assert np.all(found[np.tril_indices(TOKENS)] > 0)
  if argument == 0:
    assert np.all(influence(dataclasses.replace(NET, causal=False), 0) > 0)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_band_of_w_reaches_w_minus_1_back_for_each_block(depth):
  found = influence(dataclasses.replace(NET, depth=depth, window=3), 0)
  back = np.arange(TOKENS)[:, None] - np.arange(TOKENS)[None]
  np.testing.assert_array_equal(found > 0, (back >= 0) & (back <= 2 * depth))


def test_outputs_depend_on_relative_positions_only():
  """Rotary positions: a band of tokens gives the same output at every position."""
  net = dataclasses.replace(NET, depth=1, window=3)
  twice = jax.tree.map(lambda a: jnp.tile(a[:, :5], (1, 2, 1)), inputs())
  out = jax.jit(net.apply)(perturbed(net), *twice)
  np.testing.assert_allclose(out[:, 2:5], out[:, 7:10], atol=1e-5)
  assert np.abs(out[:, 0] - out[:, 5]).max() > 1e-3, "the first token of all has no past"


ALL = dataclasses.replace(NET, num_classes=3, vocabulary=5, depth=2)


def of_tokens(cond, start, end):
  cut = lambda a: a[:, start:end] if conditioning.is_per_token(a) else a
  return {name: cut(a) for name, a in cond.items()}


@pytest.mark.parametrize("splits", [(1,) * 10, (4, 6), (3, 1, 5, 1)], ids=str)
@pytest.mark.parametrize("window, size", [(1, None), (3, None), (3, 7), (20, None)])
def test_the_cache_equals_one_banded_pass(splits, window, size):
  net = ALL.clone(window=window)
  params, args, cond = of_every_kind(net)
  apply, cache, parts, start = jax.jit(net.apply), net.empty_cache(BATCH, size), [], 0
  for n in splits:
    part = (a[:, start : start + n] for a in args)
    out, cache = apply(params, *part, of_tokens(cond, start, start + n), cache=cache)
    parts.append(out)
    start += n
  np.testing.assert_allclose(np.concatenate(parts, axis=1), apply(params, *args, cond), atol=1e-5)
  assert int(cache.length) == TOKENS


def test_values_are_rows_of_a_table_and_vectors_products_with_a_matrix():
  """A value is a one-hot vector to a linear layer without bias; what is shared is repeated."""
  net = ALL.clone(num_classes=0)
  params, args, cond = of_every_kind(net)
  hot = lambda a: np.eye(5, dtype=np.float32)[np.asarray(a, int)]
  repeated = lambda a: np.repeat(a[:, None], TOKENS, axis=1)
  vectors = dict(action=cond["action"], button=hot(cond["button"]), flag=hot(cond["flag"]))
  vectors |= dict(goal=repeated(cond["goal"]), skill=repeated(hot(cond["skill"])))
  linear = {
    name: dict(kernel=layer["embedding"], bias=jnp.zeros(16)) if "embedding" in layer else layer
    for name, layer in params["params"].items()
  }
  found, expected = net.apply(params, *args, cond), net.apply(dict(params=linear), *args, vectors)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("left_out", [["action"], ["label"], ["action", "label", *KINDS]])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_condition_left_out_is_null_in_every_bit(left_out, streams):
  params, args, cond = of_every_kind(ALL)
  null = {name: conditioning.null(cond)[name] for name in left_out}
  rest = {name: a for name, a in cond.items() if name not in left_out}
  apply = jax.jit(functools.partial(ALL.apply, streams=streams))
  expected = apply(params, *args, cond | null)
  np.testing.assert_array_equal(apply(params, *args, rest or None), expected)
  assert np.abs(expected - apply(params, *args, cond)).max() > 1e-3


@pytest.mark.parametrize(
  "changed",
  [
    dict(action=np.ones((BATCH, TOKENS, 3))),
    dict(action=np.ones((BATCH, TOKENS), int)),
    dict(button=np.ones((BATCH, TOKENS, 5))),
    dict(speed=np.ones((BATCH, TOKENS, 1))),
  ],
  ids=lambda changed: "-".join(f"{n}{a.shape}" for n, a in changed.items()),
)
def test_a_condition_that_the_network_was_not_made_for_is_refused(changed):
  params, args, cond = of_every_kind(ALL)
  (name,) = changed
  with pytest.raises(ValueError, match=rf"^cond\.{name} of shape") as error:
    ALL.apply(params, *args, cond | changed)
  assert str(changed[name].shape) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("window", [None, 2])
def test_an_active_token_sees_itself_and_the_context_before_it_alone(window):
  """Of two streams; within a window of w the context reaches w - 1 back for each block."""
  half, net = TOKENS // 2, dataclasses.replace(NET, window=window, depth=2)
  found = influence(net, 0, streams=2) > 0
  back = np.arange(half)[:, None] - np.arange(half)[None]
  past = (back >= 0) & (back <= 2 * ((window or TOKENS) - 1))
  none = np.zeros_like(past)
  expected = np.block([[past, none], [past & (back > 0), back == 0]])
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("window", [None, 3])
def test_active_tokens_have_the_outputs_of_sampling(window):
  """Alone behind a cache of the context before them, with times and conditions of every kind."""
  half, net = TOKENS // 2, ALL.clone(window=window)
  params, args, cond = of_every_kind(net)
  first = of_tokens(cond, 0, half)
  laid_out, batch = streams_lib.lay_out(net.apply, dict(x=args[0][:, :half], cond=first), 2)
  both = jax.jit(laid_out)(params, *args, batch["cond"])
  apply, cache = jax.jit(net.apply), net.empty_cache(BATCH, half)
  for i in range(half):
    at = lambda i: [a[:, i : i + 1] for a in args]
    active, _ = apply(params, *at(half + i), of_tokens(first, i, i + 1), cache=cache)
    context, cache = apply(params, *at(i), of_tokens(first, i, i + 1), cache=cache)
    np.testing.assert_allclose(both[:, half + i], active[:, 0], atol=1e-5)
    np.testing.assert_allclose(both[:, i], context[:, 0], atol=1e-5)


@pytest.mark.parametrize(
  "changed, given, message",
  [
    (dict(width=10, heads=4), {}, "model.width=10"),
    (dict(vocabulary=0), {}, "model.vocabulary=0"),
    (dict(causal=False), dict(cache=NET.empty_cache(BATCH, 4)), "model.causal=False"),
    ({}, dict(cache=NET.empty_cache(BATCH, 4), streams=2), "streams=2"),
  ],
)
def test_wrong_fields_are_named(changed, given, message):
  with pytest.raises(ValueError, match=f"^{message}"):
    dataclasses.replace(NET, **changed).init(jax.random.key(0), *inputs(), **given)


def test_a_cache_needs_a_size_the_network_a_sequence_and_values_a_vocabulary():
  with pytest.raises(ValueError, match="model.window=None"):
    NET.empty_cache(BATCH)
  with pytest.raises(ValueError, match="is no sequence"):
    NET.init(jax.random.key(0), jnp.ones((2, 2)), jnp.ones((2, 1)), jnp.ones((2, 1)))
  params, args, cond = of_every_kind(ALL)
  out = ALL.apply(params, *args, cond | dict(skill=np.array([5, 0])))
  assert np.all(np.isnan(out[0])) and np.all(np.isfinite(out[1]))
