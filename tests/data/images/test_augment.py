"""EDM's augmentation: exact where it can be, part of the condition, the same for (seed, n)."""

import dataclasses

import numpy as np
import pytest

from dfim.data.images import augment
from tests.data.helpers import refused

ALL = augment.EDM(rate=1.0)
X_FLIP, Y_FLIP, SCALE, TURN, AXIS, SQUEEZE, RIGHT, DOWN = range(8)


def parameters(size=2, **values):
  """`[size, 8]`, zero in all but the named columns."""
  drawn = np.zeros((size, 8))
  for name, value in values.items():
    drawn[:, globals()[name]] = value
  return drawn


def noise(*shape):
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
  "values, axes", [(dict(X_FLIP=1), 2), (dict(Y_FLIP=1), 1), (dict(X_FLIP=1, Y_FLIP=1), (1, 2))]
)
def test_flips_are_exact(values, axes):
  x = noise(2, 8, 6, 3)
  np.testing.assert_array_equal(ALL.transform(x, parameters(**values)), np.flip(x, axes))


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_are_those_of_numpy(quarters):
  x = noise(2, 9, 9, 3)
  turned = ALL.transform(x, parameters(TURN=quarters * np.pi / 2))
  np.testing.assert_allclose(turned, np.rot90(x, quarters, axes=(1, 2)), atol=1e-5)


def test_whole_pixels_move_exactly_and_scale_and_squeeze_stretch():
  end = lambda **values: ALL.matrices(parameters(1, **values), (32, 32))[0] @ [1.0, 1.0, 1.0]
  np.testing.assert_allclose(end(SCALE=5), [2, 2, 1])  # 5 x 0.2 octaves
  np.testing.assert_allclose(end(SQUEEZE=5), [2, 0.5, 1])
  np.testing.assert_allclose(end(SQUEEZE=5, AXIS=np.pi / 2), [0.5, 2, 1])
  ramp = np.broadcast_to(np.arange(33.0)[None, None, :, None] - 16, (1, 33, 33, 1))
  larger = ALL.transform(ramp.astype(np.float32), parameters(1, SCALE=5))
  np.testing.assert_allclose(larger[:, 4:-4, 4:-4], ramp[:, 4:-4, 4:-4] / 2, atol=1e-3)
  x = noise(2, 16, 8, 1)  # an eighth of 16 rows and of 8 columns
  moved = ALL.transform(x, parameters(RIGHT=1, DOWN=1))
  np.testing.assert_allclose(moved[:, 2:, 1:], x[:, :-2, :-1], atol=1e-5)
  np.testing.assert_allclose(moved[:, 1, 1:], x[:, 1, :-1], atol=1e-5)  # mirrored at the border


@pytest.mark.parametrize(
  "values, slots",
  [
    (dict(X_FLIP=1), {0: 1}),
    (dict(SCALE=-1.5), {2: -1.5}),
    (dict(TURN=np.pi / 2), {3: -1, 4: 1}),
    (dict(SQUEEZE=2, AXIS=np.pi / 6), {5: np.sqrt(3), 6: 1}),
    (dict(RIGHT=0.3, DOWN=-0.2), {7: 0.3, 8: -0.2}),
  ],
)
def test_labels_lie_in_the_slots_of_the_paper(values, slots):
  wanted = np.zeros((2, 9))
  for slot, value in slots.items():
    wanted[:, slot] = value
  labels = ALL.labels(parameters(**values))
  assert labels.dtype == np.float32
  np.testing.assert_allclose(labels, wanted, atol=1e-7)


def test_transforms_happen_at_the_rate():
  drawn = augment.EDM(rate=0.12).draw(np.random.default_rng(0), 40_000)
  expected = [0.5, 0.06, *[0.12] * 6]  # a mirror is a coin; the second one is tossed at the rate
  np.testing.assert_allclose((drawn != 0).mean(0), expected, atol=0.01)
  assert np.all((drawn[:, RIGHT] != 0) == (drawn[:, DOWN] != 0))
  halves = augment.EDM(rate=1.0, squeeze_turned=0.5).draw(np.random.default_rng(0), 40_000)
  assert abs((halves[:, AXIS] != 0).mean() - 0.5) < 0.01 and np.all(halves[:, SQUEEZE] != 0)


def test_sizes_are_those_of_the_paper_with_and_without_the_mirror():
  drawn = ALL.draw(np.random.default_rng(0), 40_000)
  np.testing.assert_allclose(drawn[:, [SCALE, SQUEEZE, RIGHT, DOWN]].std(0), 1, atol=0.02)
  np.testing.assert_allclose(drawn[:, [TURN, AXIS]].std(0), np.pi / np.sqrt(3), atol=0.02)
  matrices = ALL.matrices(drawn, (32, 32))
  octaves = np.log2(np.linalg.det(matrices)) / 2  # nothing but the scale changes areas
  assert abs(octaves.std() - 0.2) < 0.005
  np.testing.assert_allclose(matrices[:, :2, 2].std(0), 32 / 8, atol=0.1)
  drawn, without = (
    dataclasses.replace(ALL, x_flip=flip).draw(np.random.default_rng(0), 100)
    for flip in (True, False)
  )
  assert drawn[:, X_FLIP].any() and not without[:, X_FLIP].any()
  np.testing.assert_array_equal(drawn[:, 1:], without[:, 1:])


def test_threads_change_nothing_nor_do_the_images_given():
  x = noise(2, 8, 6, 3)
  before, drawn = x.copy(), ALL.draw(np.random.default_rng(0), 2)
  for threads in (1, 3, 8):
    spec = dataclasses.replace(ALL, threads=threads)
    np.testing.assert_array_equal(spec.transform(x, drawn), ALL.transform(x, drawn))
  np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("field, value", dict(rate=1.2, squeeze_turned=-0.1, threads=0).items())
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.augment.{field}={value}"):
    augment.EDM(**{field: value})
