"""Prefixes: distances in units of the data, conditions, padding, and a kernel of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import prefixes, scales as scales_lib

GROUPS, M, TOKENS = 3, 4, 5
SIZES = (2, 28, 1728)  # numbers of a token


def batch(size=4, count=GROUPS * M, scale=0.5, *, seed=0):
  rng = np.random.default_rng(seed)
  x = scale * rng.normal(size=(count, TOKENS, size))
  cond = dict(
    label=rng.integers(0, 3, count),
    button=rng.integers(0, 2, (count, TOKENS)),
    goal=scale * rng.normal(size=(count, 2)),
    action=scale * rng.normal(size=(count, TOKENS, 3)),
  )
  return dict(x=x, cond=cond, mask=rng.uniform(size=(count, TOKENS, 1)) < 0.8)


def by_hand(a, b, units, discount, i):
  """The distance of two sequences' prefixes of token i, by a loop over what comes before."""
  total = 0.0
  for j in range(i):
    weight = discount ** (i - 1 - j)
    if a.real[j] and b.real[j]:
      total += weight * np.linalg.norm(a.x[j] - b.x[j]) / units["x"]
    elif a.real[j] or b.real[j]:
      total += weight
  for j in range(i + 1):
    c, d = a.cond, b.cond
    total += discount ** (i - j) * (c["button"][j] != d["button"][j])
    apart = np.linalg.norm(c["action"][j] - d["action"][j])
    total += discount ** (i - j) * apart / units["cond.action"]
  total += a.cond["label"] != b.cond["label"]
  return total + np.linalg.norm(a.cond["goal"] - b.cond["goal"]) / units["cond.goal"]


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_distance_equals_a_plain_loop(discount, float64):
  a, b = (prefixes.of_batch(batch(seed=seed)) for seed in (0, 1))
  units = {name: float(u) for name, u in prefixes.units(a).items()}
  found = jax.jit(prefixes.distance)(a, b, units, discount)
  row = lambda p, n: jax.tree.map(lambda leaf: np.asarray(leaf)[n], p)
  for m, n, i in ((0, 0, 4), (3, 7, 2), (11, 5, 0), (6, 6, 1)):
    expected = by_hand(row(a, m), row(b, n), units, discount, i)
    np.testing.assert_allclose(found[i, m, n], expected, rtol=1e-9, atol=1e-12)


def test_a_discount_of_each_token_and_rows_whose_conditions_do_not_count(float64):
  a = prefixes.of_batch(batch())
  units, whole = prefixes.units(a), functools.partial(prefixes.distance, a, a)
  each = (0.0, 1.0, 0.25, 0.5, 1.0)
  for i, discount in enumerate(each):
    np.testing.assert_allclose(whole(units, each)[i], whole(units, discount)[i], atol=1e-12)
  seen = np.arange(GROUPS * M) % 2 == 0
  found = whole(units, conditioned=seen)
  plain = prefixes.distance(a.replace(cond={}), a, units)
  np.testing.assert_array_equal(found[:, ~seen], plain[:, ~seen])
  np.testing.assert_array_equal(found[:, seen], whole(units)[:, seen])


@pytest.mark.parametrize("size", SIZES)
def test_distances_depend_on_neither_the_number_of_values_nor_their_scale(size, float64):
  """Rescaled and repeated values are no nearer or farther; typical tokens are 1 apart."""
  data = batch(size=size) | dict(mask=None)
  of = lambda data: prefixes.distance(*2 * [prefixes.of_batch(data)], units(data))
  units = lambda data: prefixes.units(prefixes.of_batch(data))
  cond = data["cond"]
  floats = {name: 30.0 * cond[name] for name in ("goal", "action")}
  scaled = dict(x=30.0 * data["x"], cond=cond | floats)
  np.testing.assert_allclose(of(scaled), of(data), rtol=1e-9)
  repeated = data | dict(x=np.tile(data["x"], (1, 1, 3)))
  np.testing.assert_allclose(of(repeated), of(data), rtol=1e-9)
  typical = prefixes.distance(*2 * [prefixes.of_batch(dict(x=data["x"]))], units(data))[1]
  count = GROUPS * M
  assert 0.6 < np.sum(typical) / (count * (count - 1)) < 1.3


def similarity(data, **given):
  of = functools.partial(prefixes.similarity, **dict(group_size=M) | given)
  return np.asarray(jax.jit(of)(prefixes.of_batch(data)))


@pytest.mark.parametrize("mean", [True, False])
def test_similarity_is_a_kernel_of_prefixes(mean, float64):
  found = similarity(dict(x=batch()["x"]), mean=mean)
  assert found.shape == (GROUPS, TOKENS, M, M)
  np.testing.assert_array_equal(np.diagonal(found, axis1=2, axis2=3), 1.0)
  np.testing.assert_array_equal(found[:, 0], 1.0)
  assert np.all((found > 0) & (found <= 1)) and np.any(found[:, 1] < 1)
  np.testing.assert_allclose(found, np.swapaxes(found, 2, 3), rtol=1e-12)
  assert np.min(np.linalg.eigvalsh(found)) > -1e-12


@pytest.mark.parametrize("size", SIZES)
def test_the_bandwidth_is_the_median_of_pairs(size, float64):
  """Half of all pairs are above exp(-1), for any number of values and any scale."""
  of = lambda scale, **given: similarity(batch(size, 240, scale) | dict(mask=None), **given)
  for scale in (1e-3, 1.0, 1e3):
    others = of(scale)[..., ~np.eye(M, dtype=bool)]
    for i in range(TOKENS):
      assert abs(np.mean(others[:, i] > np.exp(-1.0)) - 0.5) < 0.01
  np.testing.assert_allclose(of(1.0, bandwidth_multiplier=0.5), np.square(of(1.0)), rtol=1e-6)


def test_a_condition_that_differs_makes_a_pair_less_similar():
  """Of every kind, from the token that it is of."""
  data = batch() | dict(mask=None)
  for a in data["cond"].values():
    a[1] = a[0]
  for name, a in data["cond"].items():
    other = np.array(a)
    at = (1, 3) if a.ndim > 1 and name != "goal" else (1,)
    other[at] = other[at] + 5
    before, after = similarity(data), similarity(data | dict(cond=data["cond"] | {name: other}))
    first = 3 if len(at) == 2 else 0
    assert np.all(after[0, first:, 0, 1] < 0.999 * before[0, first:, 0, 1]), name


def test_similarity_is_of_the_examples_in_the_slots_of_a_group():
  data = batch(count=24)
  rng = np.random.default_rng(5)
  assignment = np.stack([rng.permutation(24) for _ in range(TOKENS)], axis=1)
  found = similarity(data, assignment=jnp.asarray(assignment))
  for i in range(TOKENS):
    rows = jax.tree.map(lambda a: a[assignment[:, i]], data)  # noqa: B023
    np.testing.assert_allclose(found[:, i], similarity(rows)[:, i], rtol=1e-4)


def fitted(data, **rule):
  sigma_data = float(np.std(data["x"]))
  return scales_lib.Fit(**rule).fit(prefixes.of_batch(data), sigma_data=sigma_data, stride=1)


def first_order(rng, count, size, lag=1):
  """Gaussian tokens that depend on the token `lag` before alone, of deviation 1."""
  x = rng.normal(size=(count, TOKENS, size))
  for i in range(lag, TOKENS):
    x[:, i] = 0.95 * x[:, i - lag] + np.sqrt(1 - 0.95**2) * x[:, i]
  return x


@pytest.mark.parametrize("lag", [1, 2])
def test_the_discount_is_found_in_the_data(lag):
  """0 where the last token says all; more where it says nothing."""
  data = dict(x=first_order(np.random.default_rng(0), 1024, 2, lag))
  found = fitted(data).discount[2:]
  assert max(found) <= 0.25 if lag == 1 else min(found) >= 0.5


@pytest.mark.parametrize("size", SIZES)
def test_scales_do_not_depend_on_the_number_of_values_or_their_scale(size):
  """The asked-for number of examples counts; rescaled data have the same inverse bandwidths."""
  x = first_order(np.random.default_rng(1), 256, size)
  found, scaled = (fitted(dict(x=a), counts=(8.0,)) for a in (x, 100.0 * x))
  np.testing.assert_allclose(found.inverse_bandwidth, scaled.inverse_bandwidth, rtol=0.02)
  assert found.discount == scaled.discount
  p = prefixes.of_batch(dict(x=x))
  apart = np.array(prefixes.distance(p, p, found.units, found.discount))
  for i in range(1, TOKENS):
    near = apart[i][~np.eye(256, dtype=bool)].reshape(256, 255)[:128]
    w = np.exp(-found.inverse_bandwidth[i] * (near - near.min(axis=1, keepdims=True)))
    count = np.exp(np.mean(np.log(w.sum(1) ** 2 / np.square(w).sum(1))))
    np.testing.assert_allclose(count, 8.0, rtol=0.1)


@pytest.mark.parametrize("size, alone", [(1, False), (2, False), (28, True)])
def test_where_no_prefix_is_near_the_example_is_alone(size, alone):
  """In 28 dimensions the nearest of 1,024 is two thirds as far as any other."""
  found = fitted(dict(x=first_order(np.random.default_rng(3), 1024, size)))
  assert all((count < 1.1) == alone for count in found.count[1:])
  fixed = fitted(dict(x=first_order(np.random.default_rng(3), 1024, size)), counts=(4.0,))
  np.testing.assert_allclose(fixed.count[1:], 4.0, rtol=1e-6)


def test_a_condition_that_decides_counts():
  """Two branches by a label: without it they are averaged, with it they are not."""
  rng = np.random.default_rng(2)
  label = rng.integers(0, 2, 512)
  x = np.repeat((2.0 * label - 1.0)[:, None, None], TOKENS, axis=1)
  x = x + 0.1 * rng.normal(size=x.shape)
  p = prefixes.of_batch(dict(x=x, cond=dict(label=label)))
  found = fitted(dict(x=x, cond=dict(label=label)))
  weights = np.exp(
    -found.inverse_bandwidth[0] * np.array(prefixes.distance(p, p, found.units, found.discount))[0]
  )
  same = label[:, None] == label[None]
  assert np.sum(weights * same) > 100 * np.sum(weights * ~same)


def test_padding_is_no_prefix_and_no_example():
  data = batch(count=64)
  data["mask"][:, 4] = False
  found = fitted(data)
  other = data | dict(x=np.where(data["mask"], data["x"], 7.0))
  assert found == fitted(other)
  assert found.inverse_bandwidth[4] == 0.0


@pytest.mark.parametrize(
  "rule, message",
  [(dict(counts=(0.5,)), "^scales.counts="), (dict(discounts=(1.5,)), "^scales.discounts=")],
)
def test_refusals(rule, message):
  with pytest.raises(ValueError, match=message):
    scales_lib.Fit(**rule)
