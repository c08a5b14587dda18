import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import conditioning

COND = dict(label=jnp.arange(1000), action=jnp.ones((1000, 2, 3)))


def test_absence_is_minus_one_for_labels_and_zero_for_numbers():
  null = conditioning.null(COND)
  np.testing.assert_array_equal(null["label"], -1)
  np.testing.assert_array_equal(null["action"], 0.0)
  assert conditioning.null(None) is None


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint32, np.int8, np.int32])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_no_discrete_value_is_taken_for_null(dtype, shape, key):
  """An unsigned -1 would be the highest value, and False is one of two."""
  value = np.ones(shape, dtype)
  np.testing.assert_array_equal(conditioning.null(dict(button=value))["button"], -1)
  for rate, expected in ((1.0, -1), (0.0, 1)):
    dropped = conditioning.drop(key, dict(button=value), rate)["button"]
    np.testing.assert_array_equal(np.asarray(dropped).astype(int), expected)


def test_an_example_loses_all_its_conditions_or_none(key):
  dropped = conditioning.drop(key, COND, 0.3)
  gone = np.asarray(dropped["label"]) == -1
  assert abs(gone.mean() - 0.3) < 0.05
  np.testing.assert_array_equal(dropped["action"][gone], 0.0)
  np.testing.assert_array_equal(dropped["action"][~gone], 1.0)
  np.testing.assert_array_equal(dropped["label"][~gone], COND["label"][~gone])


def test_what_was_done_to_an_image_is_always_told(key):
  cond = COND | dict(augment=jnp.ones((1000, 9)))
  dropped = conditioning.drop(key, cond, 1.0)
  np.testing.assert_array_equal(dropped["label"], -1)
  np.testing.assert_array_equal(dropped["augment"], 1.0)
  np.testing.assert_array_equal(conditioning.null(cond)["augment"], 0.0)  # of a sample: as it was


def test_nothing_is_dropped_by_default():
  assert conditioning.drop(jax.random.key(0), COND, 0.0) is COND


def test_no_conditions_have_nothing_to_drop(key):
  assert conditioning.drop(key, {}, 0.5) == {}
  assert conditioning.hide(None, np.ones((2, 3, 1), bool)) is None
  assert conditioning.hide(COND, None) is COND


B, T = 3, 4
KINDS = {  # name -> array of x [3, 4, ...], whether each token has one, null
  "label": (np.array([0, 1, 2]), False, -1),
  "vector_of_token": (np.ones((B, T, 2), np.float32), True, 0),
  "half_vector_of_token": (np.ones((B, T, 1), np.float16), True, 0),
  "value_of_token": (np.full((B, T), 2**30), True, -1),
  "flag_of_token": (np.ones((B, T), bool), True, -1),
  "vector": (np.ones((B, 5), np.float32), False, 0),
  "value": (np.full(B, 3, np.uint8), False, -1),
  "flag": (np.ones(B, bool), False, -1),
}
ALL = {name: array for name, (array, _, _) in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_which_conditions_every_token_has_one_of(name):
  array, per_token, _ = KINDS[name]
  assert conditioning.is_per_token(array) == per_token
  traced = jax.eval_shape(lambda a: a, array)
  assert conditioning.is_per_token(traced) == per_token


@pytest.mark.parametrize("rows", [[4, 1, 0], [2, 3, 4]], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_padding_has_no_condition(name, rows):
  array, per_token, null = KINDS[name]
  mask = np.arange(T)[None] < np.array(rows)[:, None]
  if np.issubdtype(array.dtype, np.floating):
    array = array.copy()
    array[~(mask if per_token else mask.any(axis=1))] = np.nan
  hidden = np.asarray(conditioning.hide({name: array}, mask[..., None])[name])
  assert hidden.shape == array.shape
  for i in range(B):
    for j in range(T):
      real = mask[i, j] if per_token else mask[i].any()
      found = hidden[i, j] if per_token else hidden[i]
      given = array[i, j] if per_token else array[i]
      np.testing.assert_array_equal(found, given if real else np.full_like(found, null))


def test_a_mask_may_be_shared_by_all_tokens_and_of_higher_rank():
  mask = np.array([True, False, True]).reshape(3, 1, 1, 1)
  hidden = conditioning.hide(ALL, mask)
  np.testing.assert_array_equal(hidden["value_of_token"][:, 0], [2**30, -1, 2**30])
  np.testing.assert_array_equal(hidden["label"], [0, -1, 2])


def test_every_kind_is_taken():
  conditioning.check(ALL, (B, T, 2))
  conditioning.check(jax.eval_shape(lambda cond: cond, ALL), (B, T, 2))
  conditioning.check(None, (B, T, 2))
  conditioning.check(
    dict(label=ALL["label"], augment=ALL["vector"]), (B, 8, 8, 1), reads=("augment",)
  )


@pytest.mark.parametrize(
  "name, array",
  [
    ("action", np.ones((B, T, 3, 2))),
    ("action", np.ones((B, T, 3), int)),
    ("action", np.ones((B, T, 3), bool)),
    ("action", np.ones((B, T, 0))),
    ("action", np.ones((B, T + 1, 3))),
    ("action", np.ones((B + 1, T, 3))),
    ("action", np.ones((B, T - 1), int)),
    ("action", np.ones((B, T, 3), complex)),
    ("goal", np.ones(B)),
    ("goal", np.ones((1, 3))),
    ("goal", np.float32(1.0)),
    ("goal", np.full((B, T), "left")),
    ("goal", np.full(B, None)),
    ("skill", np.ones(B + 1, int)),
    ("label", np.ones((B, 1), int)),
    ("label", np.ones((B, T), int)),
    ("label", np.ones((B, 3))),
    ("label", np.ones(B)),
  ],
  ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
def test_what_is_of_no_kind_or_does_not_fit_is_refused_with_its_shape(name, array):
  with pytest.raises(ValueError, match=rf"^cond\.{name} of shape") as error:
    conditioning.check({name: array}, (B, T, 2))
  assert str(tuple(np.shape(array))) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cond", [dict(goal=[1.0, 2.0]), dict(goal=None), np.ones((B, T, 2))])
def test_what_is_no_array_is_refused(cond):
  with pytest.raises(ValueError, match=r"^cond(\.goal)? of "):
    conditioning.check(cond, (B, T, 2))


@pytest.mark.parametrize("name", ["action", "augment"])
def test_a_name_that_would_be_ignored_is_refused(name):
  with pytest.raises(ValueError, match=rf"cond\.{name} of shape \(3, 4, 2\)"):
    conditioning.check({name: np.ones((B, T, 2))}, (B, T, 2), reads=("speed",))
