"""The form of a run's data comes back from its folder."""

import jax
import numpy as np
import pytest

from dfim.data import examples
from dfim.data.synthetic import steered_walk


@pytest.mark.parametrize("more", [{}, dict(label=np.arange(8), augment=np.ones((8, 9)))])
def test_samples_are_shown_conditions_of_every_kind_but_labels_and_augmentation(tmp_path, more):
  batch = next(steered_walk.steered_walk(8, 0))
  batch["cond"] |= more
  form = examples.of_batch(batch, (0, 1))
  examples.write(tmp_path, form, 3)
  found = examples.read(tmp_path, 8)
  assert found.batch == form.batch and set(found.batch["cond"]) == {"turn", "gain", *more}
  assert found.labels == (0, 1) and set(found.cond) == {"turn", "gain"}
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:3], b), form.cond, found.cond)


def test_conditions_without_rows_as_older_runs_wrote_them_are_not_shown(tmp_path):
  batch = next(steered_walk.steered_walk(8, 0))
  form = examples.of_batch(batch, ())
  examples.write(tmp_path, examples.Examples(form.batch), 3)
  assert examples.read(tmp_path, 8) == examples.Examples(form.batch)
