"""Conditions: their kinds and nulls, dropped by example, absent in padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import conditioning

COND = dict(label=jnp.arange(1000), action=jnp.ones((1000, 2, 3)))


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
  assert conditioning.drop(key, COND, 0.0) is COND and conditioning.drop(key, {}, 0.5) == {}


def test_augmentation_is_never_dropped(key):
  cond = COND | dict(augment=jnp.ones((1000, 9)))
  dropped = conditioning.drop(key, cond, 1.0)
  np.testing.assert_array_equal(dropped["label"], -1)
  np.testing.assert_array_equal(dropped["augment"], 1.0)
  np.testing.assert_array_equal(conditioning.null(cond)["augment"], 0.0)  # of a sample: as it was


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


@pytest.mark.parametrize("rows", [[4, 1, 0], [2, 3, 4]], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_padding_has_no_condition(name, rows):
  array, per_token, null = KINDS[name]
  assert conditioning.is_per_token(jax.eval_shape(lambda a: a, array)) == per_token
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


def test_a_mask_may_be_shared_by_all_tokens_and_of_higher_rank_and_is_optional():
  mask = np.array([True, False, True]).reshape(3, 1, 1, 1)
  hidden = conditioning.hide(ALL, mask)
  np.testing.assert_array_equal(hidden["value_of_token"][:, 0], [2**30, -1, 2**30])
  np.testing.assert_array_equal(hidden["label"], [0, -1, 2])
  assert conditioning.hide(None, mask) is None and conditioning.hide(ALL, None) is ALL


@pytest.mark.parametrize(
  "name, array",
  [
    ("action", np.ones((B, T, 3, 2))),
    ("action", np.ones((B, T, 3), int)),
    ("action", np.ones((B, T + 1, 3))),
    ("action", np.ones((B, T, 3), complex)),
    ("goal", np.ones((1, 3))),
    ("goal", np.full((B, T), "left")),
    ("label", np.ones((B, 1), int)),
  ],
  ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
def test_arrays_of_no_kind_or_that_do_not_fit_are_refused_with_their_shape(name, array):
  with pytest.raises(ValueError, match=rf"^cond\.{name} of shape") as error:
    conditioning.check({name: array}, (B, T, 2))
  assert str(tuple(np.shape(array))) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "cond, field",
  [
    (dict(goal=[1.0, 2.0]), "cond.goal"),
    (np.ones((B, T, 2)), "cond"),
    (dict(action=np.ones((B, T, 2))), "cond.action"),
  ],
)
def test_values_that_are_no_arrays_and_names_that_would_be_ignored_are_refused(cond, field):
  with pytest.raises(ValueError, match=f"^{field} of "):
    conditioning.check(cond, (B, T, 2), reads=("speed",))
