"""Rollouts: chunk after chunk, with a window or a cache, and what is shown of finished tokens."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, interpolants as ip, levels as levels_lib, parameterization as pz
from dfim.models.causal_transformer import CausalTransformer
from dfim.samplers import jump, rollout as rollout_lib

FM, COSINE = ip.FlowMatching(), ip.Cosine()
F = pz.EulerFlow(FM)
NET = CausalTransformer(width=16, depth=2, heads=2, window=5)
DIM, LENGTH = 2, 64
TIMES = np.linspace(0.99, 0.01, 4)
DDIM = jump.Ancestral(0.0)
SCHEDULES = dict(
  autoregressive=levels_lib.autoregressive,
  pyramid=functools.partial(levels_lib.pyramid, lag=1.5),
  full_sequence=levels_lib.full_sequence,
)


def network(net=NET, dtype=jnp.float32):
  """Random weights, without the zeros of an initialisation."""
  x = jnp.zeros((1, 3, DIM))
  t, cond = jnp.zeros((1, 3, 1)), {"action": jnp.zeros((1, 3, 1))}
  rng = np.random.default_rng(0)
  noise = lambda p: jnp.asarray(rng.normal(0, 0.6 * np.prod(p.shape[:-1]) ** -0.5, p.shape), dtype)
  return jax.tree.map(noise, jax.eval_shape(net.init, jax.random.key(0), x, t, t, cond))


def model_of(net, params):
  return functools.partial(jump.of_network, net.apply, params, F)


def draw(
  schedule,
  chunk,
  *,
  cached,
  window=LENGTH + 8,
  length=LENGTH,
  lengths=None,
  batch=2,
  net=NET,
  **stable,
):
  """A rollout in float64 after 3 observed tokens, with a condition per token."""
  models = model_of(net, network(net, jnp.float64))
  how = rollout_lib.Rollout(schedule, window, chunk, **stable)
  rng = np.random.default_rng(1)
  context = jnp.asarray(rng.normal(size=(batch, 3, DIM)), jnp.float64)
  cond = {"action": jnp.asarray(rng.normal(size=(batch, 3 + length, 1)), jnp.float64)}
  cache = net.empty_cache(batch, dtype="float64") if cached else None
  what = dict(step=DDIM, length=length, lengths=lengths, cache=cache)
  roll = functools.partial(rollout_lib.rollout, models, times=TIMES, how=how, **what)
  with jax.debug_key_reuse(False):
    return jax.jit(roll)(jax.random.key(2), context, cond)


@pytest.mark.parametrize(
  "mode", ["none", *(pytest.param(m, marks=pytest.mark.slow) for m in ("label", "scale"))]
)
@pytest.mark.parametrize(
  "name, chunk", [("autoregressive", 4), ("pyramid", 8), ("full_sequence", 4)]
)
def test_64_tokens_from_a_cache_equal_the_whole_sequence_shown_again(name, chunk, mode, float64):
  """To 1e-9 in float64, with a cache of 4 places: nearly all tokens have been evicted."""
  stable = dict(mode=mode, t_context=0.05)
  cached = draw(SCHEDULES[name], chunk, cached=True, **stable)
  shown = draw(SCHEDULES[name], chunk, cached=False, **stable)
  assert cached.dtype == jnp.float64 and cached.shape == (2, 3 + LENGTH, DIM)
  np.testing.assert_allclose(cached, shown, atol=1e-9)
  assert np.std(cached[:, 3:]) > 0.05


def test_autoregressive_in_a_chunk_is_one_token_at_a_time(float64):
  one = draw(levels_lib.autoregressive, 1, cached=True, length=8)
  four = draw(levels_lib.autoregressive, 4, cached=True, length=8)
  np.testing.assert_allclose(one, four, atol=1e-9)


def test_a_short_window_forgets(float64):
  """A sliding window of W tokens shows no more than these; deep bands look further back."""
  short = draw(levels_lib.autoregressive, 1, cached=False, window=3, length=8)
  whole = draw(levels_lib.autoregressive, 1, cached=False, length=8)
  np.testing.assert_allclose(short[:, :3], whole[:, :3])
  assert np.abs(short[:, -1] - whole[:, -1]).max() > 1e-3


def test_the_context_comes_back_untouched_and_examples_keep_to_themselves(float64):
  two = draw(levels_lib.full_sequence, 4, cached=True, length=8)
  context = np.random.default_rng(1).normal(size=(2, 3, DIM))
  np.testing.assert_array_equal(two[:, :3], context)


def of_functions(jump_to=None, denoise=None):
  """The models of functions that read no condition."""
  return lambda cond: jump.Model(jump_to, denoise, FM, 0.5)


def record(observed=2, context_time=None, **kw):
  """A rollout of a jump that records its arguments: the sequences, and pairs of times s and t."""
  seen, context = [], jnp.ones((1, observed, 1))

  def jump_to(x, s, t):
    jax.debug.callback(lambda *a: seen.append([np.asarray(b) for b in a]), x, s, t, ordered=True)
    return jnp.zeros_like(x) + s

  how = rollout_lib.Rollout(levels_lib.autoregressive, 4, 2, context_time=context_time)
  arguments = jax.random.key(0), context, None, [0.9, 0.5, 0.1], how
  kw = dict(step=jump.Pushforward(), length=4, **kw)
  out = rollout_lib.rollout(of_functions(jump_to), *arguments, **kw)
  jax.effects_barrier()
  return out, [(s[0, :, 0].tolist(), t[0, :, 0].tolist()) for _, s, t in seen]


def test_the_window_shows_finished_tokens_clean_and_later_places_as_noise():
  _, seen = record()
  times = [t for _, t in seen]
  np.testing.assert_allclose(times[0], [0.1, 0.1, 0.9, 0.9])
  np.testing.assert_allclose(times[1], [0.1, 0.1, 0.5, 0.9])
  np.testing.assert_allclose(times[2], [0.1, 0.1, 0.1, 0.9])
  np.testing.assert_allclose(times[4], [0.1, 0.1, 0.9, 0.9], err_msg="the next chunk")
  assert len(seen) == 8


def test_observations_may_be_noisy():
  _, seen = record(context_time=0.3)
  np.testing.assert_allclose(seen[0][1], [0.3, 0.3, 0.9, 0.9])
  np.testing.assert_allclose(seen[4][1], [0.1, 0.1, 0.9, 0.9], err_msg="drawn ones are clean")


def test_a_network_that_sees_all_places_is_shown_pure_noise_where_nothing_is_drawn_yet():
  _, seen = record(observed=0)
  np.testing.assert_allclose(seen[0][1], [0.9] * 4)
  np.testing.assert_allclose(seen[4][1], [0.1, 0.1, 0.9, 0.9])


def test_sequences_of_any_length_in_one_batch():
  """Beyond its length a sequence is pure noise to the network, and 0 when it comes back."""
  out, seen = record(lengths=jnp.array([5]))
  np.testing.assert_allclose(seen[4][1], [0.1, 0.1, 0.9, 0.9])
  np.testing.assert_allclose(seen[-1][0], [0.1, 0.1, 0.1, 0.9], err_msg="the last is not there")
  np.testing.assert_array_equal(out[0, 5:], 0.0)
  assert np.all(out[0, :5] != 0.0)


@pytest.mark.parametrize("cached", [True, False])
def test_a_causal_sequence_does_not_know_how_long_the_others_are(cached, float64):
  ragged = draw(levels_lib.pyramid, 4, cached=cached, length=8, lengths=np.array([6, 11]))
  whole = draw(levels_lib.pyramid, 4, cached=cached, length=8)
  np.testing.assert_allclose(ragged[0, :6], whole[0, :6], atol=1e-9)
  np.testing.assert_allclose(ragged[1], whole[1], atol=1e-9)
  np.testing.assert_array_equal(ragged[0, 6:], 0.0)


def test_progress_is_reported_after_each_chunk():
  done = []
  record(report=lambda n, chunks: done.append((int(n), int(chunks))))
  jax.effects_barrier()
  assert sorted(done) == [(1, 2), (2, 2)]


def test_one_compile_for_each_shape_of_call():
  traced = chex.assert_max_traces(n=1)(lambda x, s, t: jnp.zeros_like(x))

  how = rollout_lib.Rollout(levels_lib.full_sequence, 8, 2)
  what = dict(cond=None, times=[0.9, 0.1], how=how, step=jump.Pushforward(), length=64)
  roll = jax.jit(functools.partial(rollout_lib.rollout, of_functions(traced), **what))

  chex.clear_trace_counter()
  for seed in range(3):
    roll(jax.random.key(seed), jnp.zeros((2, 3, 1)))


def gaussian_ar1(rho=0.9, std=0.5, tokens=24):
  covariance = std**2 * rho ** np.abs(np.subtract.outer(np.arange(tokens), np.arange(tokens)))
  return jnp.asarray(covariance)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_perfect_causal_denoiser_rolls_out_the_right_distribution(chunk):
  """A first-order process: the correlation of neighbours is right far beyond the window."""
  tokens, window = 24, 6
  covariance = gaussian_ar1(tokens=window)

  def clean(x, t):  # E[x_i | x_t up to i] of a window, by a regression for each token
    alpha, sigma = FM.alpha(t)[0, :, 0], FM.sigma(t)[0, :, 0]
    rows = []
    for i in range(window):
      a, noise = jnp.diag(alpha[: i + 1]), jnp.diag(jnp.square(0.5 * sigma[: i + 1]) + 1e-9)
      known = a @ covariance[: i + 1, : i + 1] @ a + noise
      gain = jnp.linalg.solve(known, a @ covariance[: i + 1, i])
      rows.append(jnp.einsum("bj,j->b", x[:, : i + 1, 0], gain))
    return jnp.stack(rows, axis=1)[..., None]

  how = rollout_lib.Rollout(levels_lib.autoregressive, window, chunk)
  what = dict(times=np.linspace(0.999, 0.0, 41), how=how, step=DDIM, length=tokens)
  roll = functools.partial(rollout_lib.rollout, of_functions(denoise=clean), **what)
  out = jax.jit(roll)(jax.random.key(0), context=jnp.zeros((4000, 0, 1)), cond=None)
  for distance in (1, 2, 4):
    correlation = [np.corrcoef(out[:, k - distance, 0], out[:, k, 0])[0, 1] for k in (12, 18, 23)]
    np.testing.assert_allclose(correlation, 0.9**distance, atol=0.04)
  np.testing.assert_allclose(out.std(axis=0), 0.5, atol=0.04)


@pytest.mark.parametrize("noise", ["kept", "fresh"])
def test_a_perfect_causal_jump_rolls_out_the_right_distribution(noise):
  """Three calls a token, down its own noise or with fresh noise between the calls."""
  std, window = 0.5, 4
  left = jnp.full((1, window, 1), std * np.sqrt(1 - 0.9**2)).at[:, 0].set(std)

  def perfect(x, s, t):  # the flow of each token given the one before, which is clean
    mean = 0.9 * jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    at = lambda u: jnp.sqrt((FM.alpha(u) * left) ** 2 + (0.5 * FM.sigma(u)) ** 2)
    return FM.alpha(s) * mean + (x - FM.alpha(t) * mean) * at(s) / at(t)

  step = dict(kept=jump.Pushforward(), fresh=jump.Restart())[noise]
  how = rollout_lib.Rollout(levels_lib.autoregressive, window, 1)
  what = dict(times=grids.uniform(3, 1.0, 0.0), how=how, step=step, length=9)
  roll = functools.partial(rollout_lib.rollout, of_functions(perfect), **what)
  out = jax.jit(roll)(jax.random.key(0), context=jnp.zeros((20_000, 0, 1)), cond=None)[..., 0]
  np.testing.assert_allclose(out.std(axis=0), std, rtol=0.02)
  for distance in (1, 2, 4):
    correlation = np.corrcoef(out[:, 8 - distance], out[:, 8])[0, 1]
    np.testing.assert_allclose(correlation, 0.9**distance, atol=0.01)


@pytest.mark.parametrize(
  "mode, fed, level",
  [
    ("none", lambda x: x, 0.01),
    ("label", lambda x: x, 0.2),
    ("scale", lambda x: 0.8 * x, 0.2),
  ],
)
def test_each_mode_shows_finished_tokens_its_way(mode, fed, level, key):
  x = jnp.full((1, 2, 1), 3.0)
  t = jnp.array([[[0.01], [0.7]]])
  shown, times = stable(mode).shown(key, x, t, jump.Model(None, None, FM, 0.5))
  np.testing.assert_allclose(shown[0, :, 0], [fed(3.0), 3.0], rtol=1e-6)
  np.testing.assert_allclose(times[0, :, 0], [level, 0.7], rtol=1e-6)


def stable(mode, t_context=0.2):
  return rollout_lib.Rollout(levels_lib.autoregressive, 3, 1, t_context=t_context, mode=mode)


@pytest.mark.parametrize("path", [FM, COSINE], ids=repr)
def test_noise_of_a_stabilised_token_has_the_level_that_is_shown(path, key):
  x, t = jnp.full((20_000, 1, 1), 3.0), jnp.full((1, 1, 1), 0.01)
  model = jump.Model(None, None, path, 0.5)
  shown, times = stable("scale_and_noise").shown(key, x, t, model)
  level = jnp.full(1, 0.2)
  np.testing.assert_allclose(shown.mean(), 3.0 * path.alpha(level)[0], rtol=0.01)
  np.testing.assert_allclose(shown.std(), 0.5 * path.sigma(level)[0], rtol=0.02)
  np.testing.assert_allclose(times, 0.2, rtol=1e-6)


@pytest.mark.parametrize("mode", ["none", "label", "scale", "scale_and_noise"])
def test_stabilised_tokens_stay_bit_identical_and_tokens_on_their_way_are_shown_as_they_are(mode):
  seen = {}

  def step(model, key, x, s, t, end):
    seen.update(x=x, s=s, t=t)
    return x + 1.0

  x = jnp.full((1, 3, 1), 3.0)
  t = jnp.array([[[0.01], [0.1], [0.7]]])
  s = jnp.array([[[0.01], [0.01], [0.5]]])
  model = jump.Model(None, None, FM, 0.5)
  out = rollout_lib.stabilised(step, stable(mode), model, jax.random.key(0), x, s, t, 0.01)
  np.testing.assert_array_equal(out[0, :, 0], [3.0, 4.0, 4.0])
  np.testing.assert_array_equal(seen["x"][0, 1:], x[0, 1:])
  np.testing.assert_array_equal(seen["t"][0, 1:], t[0, 1:])
  assert (seen["t"][0, 0, 0] == t[0, 0, 0]) == (mode == "none")
  assert seen["s"][0, 0, 0] == seen["t"][0, 0, 0], "a finished token is a denoiser's s = t"


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(levels=[[2, 2], [2, 1], [0, 2], [0, 0]]), "levels rises in row 2, token 1"),
    (dict(levels=[[2], [0]]), "levels has 1 columns: give one for each of 2 tokens"),
    (dict(levels=[[2, 2], [0, 1]]), r"levels ends at \[0, 1\]"),
    (dict(levels=[[1, 2], [0, 0]]), r"levels starts at \[1, 2\]"),
    (dict(levels=[[2.0, 2.0], [0.0, 0.0]]), "give whole numbers"),
    (dict(window=1), "window=1: must hold at least the chunk of 2"),
    (dict(length=5), "chunk=2: with length=5"),
    (dict(chunk=0), "chunk=0"),
    (dict(mode="scaled"), "mode='scaled': .* none, label, scale, scale_and_noise"),
    (dict(t_context=1.0), "t_context=1.0"),
    (dict(context_time=2.0), "context_time=2.0"),
    (dict(cond={"action": jnp.zeros((1, 8, 1))}), "cond of 8 tokens: .* 3 . 4 tokens"),
  ],
)
def test_what_does_not_fit_is_named(changes, message):
  given = dict(cond=None, levels=levels_lib.full_sequence, window=4, chunk=2, length=4) | changes
  arguments = jax.random.key(0), jnp.zeros((1, 3, 1)), given.pop("cond"), [0.9, 0.5, 0.1]
  never, length = lambda cond: pytest.fail("a step was made"), given.pop("length")
  with pytest.raises(ValueError, match=message):
    how = rollout_lib.Rollout(**given)
    rollout_lib.rollout(never, *arguments, how, step=jump.Pushforward(), length=length)


def test_a_network_without_a_window_needs_the_size_of_its_cache():
  with pytest.raises(ValueError, match="model.window=None"):
    dataclasses.replace(NET, window=None).empty_cache(2)


@pytest.mark.parametrize("betas", ["cosine", "sigmoid"])
@pytest.mark.parametrize(
  "released, kind", [("pred_noise", pz.Noise), ("pred_x0", pz.Identity), ("pred_v", pz.SimpleEDM)]
)
def test_golden_ddim_step_per_token(betas, released, kind, golden, float64):
  """20 of 1000 levels, eta 0, finished tokens scaled and labelled index 14: `scale` at .015."""
  numbers = golden("diffusion_forcing.npz")
  f = kind(ip.DiscreteVP(betas), sigma_data=1.0)
  tokens_second = lambda name: jnp.asarray(numbers[name]).swapaxes(0, 1)
  x, times = tokens_second("x"), grids.discrete(1000, 20)
  t, s = (times[20 - tokens_second(name)][..., None] for name in ("level_now", "level_next"))

  def analytic(params, x, s, t, cond):
    return jnp.tanh(x @ numbers["A"].T) * (0.5 + (1000 * t - 1) / 2000)

  model = jump.of_network(analytic, None, f)
  how = stable("scale", 0.015)
  out = rollout_lib.stabilised(DDIM, how, model, jax.random.key(0), x, s, t, 0.0)
  expected = tokens_second(f"ddim_step/{released}/{betas}")
  np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)


def test_conditions_beyond_the_length_are_never_read():
  models, how = model_of(NET, network()), rollout_lib.Rollout(levels_lib.autoregressive, 5, 1)

  def drawn(fill):
    cond = dict(action=jnp.ones((2, 6, 1)).at[0, 4:].set(fill))
    arguments = jax.random.key(1), jnp.zeros((2, 2, DIM)), cond, TIMES, how
    what = dict(step=DDIM, length=4, lengths=jnp.array([4, 6]))
    return rollout_lib.rollout(models, *arguments, **what)

  with jax.debug_key_reuse(False):
    np.testing.assert_array_equal(drawn(0.0), drawn(np.nan))
