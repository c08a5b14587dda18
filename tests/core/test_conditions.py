import jax
import jax.numpy as jnp
import numpy as np

from dfim.core import conditions

COND = dict(label=jnp.arange(1000), action=jnp.ones((1000, 2, 3)))


def test_absence_is_minus_one_for_labels_and_zero_for_numbers():
  null = conditions.null(COND)
  np.testing.assert_array_equal(null["label"], -1)
  np.testing.assert_array_equal(null["action"], 0.0)
  assert conditions.null(None) is None


def test_an_example_loses_all_its_conditions_or_none(key):
  dropped = conditions.drop(key, COND, 0.3)
  gone = np.asarray(dropped["label"]) == -1
  assert abs(gone.mean() - 0.3) < 0.05
  np.testing.assert_array_equal(dropped["action"][gone], 0.0)
  np.testing.assert_array_equal(dropped["action"][~gone], 1.0)
  np.testing.assert_array_equal(dropped["label"][~gone], COND["label"][~gone])


def test_what_was_done_to_an_image_is_always_told(key):
  cond = COND | dict(augment=jnp.ones((1000, 9)))
  dropped = conditions.drop(key, cond, 1.0)
  np.testing.assert_array_equal(dropped["label"], -1)
  np.testing.assert_array_equal(dropped["augment"], 1.0)
  np.testing.assert_array_equal(conditions.null(cond)["augment"], 0.0)  # of a sample: as it was


def test_nothing_is_dropped_by_default():
  assert conditions.drop(jax.random.key(0), COND, 0.0) is COND
