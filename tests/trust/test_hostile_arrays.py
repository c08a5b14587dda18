"""Arrays of any kind at every entry point: the right numbers, or one line that refuses them.

Seeded; a failure prints its example and the seed. HOSTILE_SECONDS=1200 HOSTILE_SEED=7 search
longer, elsewhere.
"""

import functools
import os
import time

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants, parameterization, patterns, times, weights
from dfim.data.images import sets
from dfim.data.series import forecasting
from dfim.evaluators import baselines
from dfim.metrics import crps, distances, frechet, precision_recall
from dfim.models import causal_transformer
from dfim.objectives import denoising
from dfim.samplers import given
from tests import trust

pytestmark = pytest.mark.timeout(3600)
SEED = int(os.environ.get("HOSTILE_SEED", 0))
HUNTS = 5  # tests below
SECONDS = float(os.environ.get("HOSTILE_SECONDS", trust.scaled(12, 60))) / HUNTS
DTYPES = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 ? c8".split()
FAULTS = "none none none nan inf huge constant sorted list object text missing masked".split()


def hunt(strategy, check):
  """Examples of seeds SEED, SEED + 1, .. until the time is over."""
  end, n = time.monotonic() + SECONDS, 0
  options = dict(max_examples=50, deadline=None, database=None, report_multiple_bugs=False)
  quiet = hypothesis.settings(**options, suppress_health_check=hypothesis.HealthCheck)
  while n == 0 or time.monotonic() < end:
    print(f"HOSTILE_SEED={SEED + n}")
    quiet(hypothesis.seed(SEED + n)(hypothesis.given(strategy)(check)))()
    n += 1


def fields(**strategies):
  return st.fixed_dictionaries(strategies)


def arrays(*shapes):
  """Any array: mostly of one of `shapes`, now and then with a fault or of another rank."""
  other = st.lists(st.integers(0, 4), max_size=4).map(tuple)
  shape = st.one_of(*[st.sampled_from(shapes)] * 5, other)
  kind, fault = st.sampled_from(DTYPES), st.sampled_from(FAULTS)
  return st.builds(made, shape, kind, fault, st.integers(0, 9999))


def made(shape, dtype, fault, seed):
  rng = np.random.default_rng(seed)
  with np.errstate(all="ignore"):
    array = np.asarray(40 + 9 * rng.normal(size=shape)).astype(dtype)
  if fault == "none" or not array.size:
    return array
  at = tuple(rng.integers(0, n) for n in array.shape)
  if fault in ("nan", "inf", "huge") and array.dtype.kind in "fc":
    array[at] = dict(nan=np.nan, inf=-np.inf, huge=np.finfo(array.real.dtype).max)[fault]
  if fault == "constant" and array.ndim:
    array[..., rng.integers(0, array.shape[-1])] = array[at]
  if fault == "sorted" and array.ndim:
    array = np.sort(array, axis=0)
  if fault == "masked":
    return np.ma.masked_array(array, rng.random(shape) < 0.2)
  plain = dict(list=array.tolist(), object=array.astype(object), text=array.astype(str))
  return None if fault == "missing" else plain.get(fault, array)


def taken(call):
  """The result of `call`, or None if it refuses in one line; anything else is an error."""
  try:
    return call()
  except (ValueError, FileNotFoundError) as error:
    line = str(error)
    assert line and "\n" not in line and len(line) < 400, line
    return None


def finite(*found):
  for array in found:
    assert np.isfinite(np.asarray(array, np.float64)).all()


def whole(low, high):
  return st.one_of(*[st.integers(low, high)] * 5, st.sampled_from([2.5, None, "3", True, -1, 0]))


def test_series():
  rows, stack = 260, 2
  size = dict(context=8, horizon=4, stack=stack)
  cuts = st.one_of(
    *[st.just((160, 200, 240))] * 6,
    st.sampled_from([(160.0, 200, 240), (240, 160, 260), (9, 9, 9), None, (160, 200, 999)]),
  )
  values = arrays((rows, 2), (rows, 1))
  strategy = fields(values=values, calendar=arrays((rows, 1)), season=whole(1, 6), cuts=cuts)

  def check(series):
    batch = taken(lambda: next(forecasting.windows(4, 0, series=series, **size)))
    if batch is None:
      return
    finite(batch["x"], batch["cond"]["covariates"])
    values = np.asarray(series["values"], np.float64)
    test = taken(lambda: forecasting.load(series=series, **size))
    origins = range(8, series["cuts"][0] - 3)
    off = np.stack([values[o - 8 : o + 4] - values[o - 1] for o in origins])
    std = off.std((0, 1))
    moves = values.std(0) > 1e-9 * np.abs(values).max(0)
    if test is not None:
      np.testing.assert_allclose(test["scale"][moves], std[moves], rtol=1e-6)
      finite(test["x"])
    for forecast in (baselines.seasonal_naive, baselines.ridge_var):
      if test is not None:
        paths = taken(lambda f=forecast: f(series, test, paths=2))
        if paths is not None:
          finite(paths)
          scores = taken(lambda p=paths: crps.scores(p, test["target"]))
          finite(*(scores or {}).values())

  hunt(strategy, check)


def test_images(tmp_path):
  label, name = st.one_of(st.none(), arrays((6,))), st.sampled_from(["label", "labels", "y"])
  strategy = fields(x=arrays((6, 4, 4, 3), (6, 4, 4)), label=label, name=name)

  def check(offered):
    x, label, name = (offered[field] for field in ("x", "label", "name"))
    path = tmp_path / "some.npz"
    np.savez(path, x=x, **({} if label is None else {name: label}))
    found = taken(lambda: sets.load_npz(path))
    if found is None:
      return
    pixels = np.asarray(x, np.float64).reshape(found["x"].shape)
    np.testing.assert_allclose(found["x"], pixels / 127.5 - 1, atol=1e-6)
    batch = taken(lambda: next(sets.npz(3, 0, path=path)))
    assert (batch is None) == (len(found["x"]) == 0)
    if label is not None:
      np.testing.assert_array_equal(found["label"], np.asarray(label, np.int64))

  hunt(strategy, check)


def test_arrays_given_to_draw():
  like = lambda dtype, *shape: jax.ShapeDtypeStruct((9, *shape), dtype)
  cond = dict(goal=like("float32", 3), action=like("int32", 6), plan=like("float32", 6, 2))
  batch = dict(x=like("float32", 6, 2), cond=cond)
  net = causal_transformer.CausalTransformer(vocabulary=99)
  strategy = fields(
    context=st.one_of(st.none(), arrays((4, 3, 2))),
    goal=arrays((4, 3)),
    action=arrays((4, 6)),
    plan=arrays((4, 6, 2)),
    lengths=st.one_of(st.none(), arrays((4,))),
  )

  def check(offered):
    context, lengths = offered.pop("context"), offered.pop("lengths")
    call = functools.partial(given.check, batch, net, 4)
    found = taken(lambda: call(context=context, cond=offered, lengths=lengths))
    if found is None:
      return
    for name, array in dict(found["cond"], context=found.get("context")).items():
      wanted = context if name == "context" else offered[name]
      if wanted is not None:
        finite(array)
        np.testing.assert_allclose(array, np.asarray(wanted, np.float64), rtol=1e-3)
    assert found["cond"]["action"].max() < 99 and found["cond"]["action"].min() >= -1
    if lengths is not None:
      assert found["lengths"].dtype == np.int32 and found["lengths"].max() <= 6

  hunt(strategy, check)


def test_scores():
  strategy = st.tuples(arrays((24, 3), (24, 2, 2)), arrays((24, 3), (30, 3), (30, 2, 2)))

  def check(pair):
    x, y = pair
    for score in (distances.energy_distance, distances.kernel_distance):
      finite(*(taken(lambda s=score: s(x, y)) or ()))
    found = taken(lambda: precision_recall.scores(x, y))
    if found is not None:
      finite(*found.values())
      order = np.random.default_rng(0).permutation(len(x))
      assert found == precision_recall.scores(np.asarray(x)[order], y)
    finite(*(taken(lambda: frechet.moments(x)) or ()))

  hunt(strategy, check)


@functools.cache
def losses():
  """A compiled loss for each pattern, of a network that sees all tokens, and its parameters."""
  net = causal_transformer.CausalTransformer(width=8, depth=1, heads=2, causal=False)
  f = parameterization.EulerFlow(interpolants.FlowMatching(), sigma_data=0.5)
  one = jnp.ones((1, 5, 2)), jnp.ones((1, 5, 1)), jnp.ones((1, 5, 1))
  cond = dict(action=jnp.zeros((1, 5, 3)), move=jnp.zeros((1, 5), int))
  params = net.init(jax.random.key(0), *one, cond)
  params = jax.tree.map(lambda a: a + 0.1, params)

  def of(pattern):
    draw = functools.partial(times.sample, pattern=pattern, t_max=0.99, t_min=0.01)
    how = dict(f=f, sample_times=draw, weight=weights.uniform)
    return jax.jit(lambda batch, key: denoising.loss(net.apply, params, None, batch, key, **how)[0])

  each = patterns.token, patterns.pivot, patterns.next_token, patterns.context
  return params, list(map(of, each))


def test_padding():
  strategy = st.tuples(st.integers(0, 3), st.integers(0, 9999), st.integers(0, 9999))

  def check(drawn):
    which, masks, fill = drawn
    rng, junk = np.random.default_rng(masks), np.random.default_rng(fill)
    mask = rng.random((4, 5, 1)) < rng.choice([0.1, 0.5, 0.9])
    x, action = (rng.normal(size=(4, 5, n)).astype(np.float32) for n in (2, 3))
    move = rng.integers(0, 256, (4, 5), np.int32)
    batch = lambda x, action, move: dict(x=x, cond=dict(action=action, move=move), mask=mask)
    loss, key = losses()[1][which], jax.random.key(masks)
    found = float(loss(batch(x, action, move), key))
    finite(found)
    bad = np.float32(junk.choice([np.nan, np.inf, 1e30]))
    x, action = (np.where(mask, a, bad) for a in (x, action))
    move = np.where(mask[..., 0], move, junk.integers(-5, 2**31 - 1))
    assert float(loss(batch(x, action, move), key)) == found

  with jax.debug_key_reuse(False):
    hunt(strategy, check)
