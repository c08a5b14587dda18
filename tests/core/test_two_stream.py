"""Two streams: everything per token is repeated, context first, and nothing else changes."""

import numpy as np
import pytest

from dfim.core import posterior, two_stream

BATCH = dict(
  x=np.arange(24.0).reshape(2, 4, 3),
  mask=np.ones((2, 4, 1), bool),
  cond=dict(
    label=np.arange(2),
    augment=np.ones((2, 9)),
    action=np.arange(16.0).reshape(2, 4, 2),
    button=np.arange(8).reshape(2, 4),
  ),
)


def test_two_streams_double_the_arrays_of_tokens_and_one_changes_nothing():
  apply, batch = two_stream.lay_out(lambda *args, **given: (args, given), BATCH, 2)
  assert apply(1, rngs=2) == ((1,), dict(streams=2, rngs=2))
  cond, before = batch["cond"], BATCH["cond"]
  for twice, once in (
    (batch["x"], BATCH["x"]),
    (batch["mask"], BATCH["mask"]),
    (cond["action"], before["action"]),
    (cond["button"], before["button"]),
  ):
    np.testing.assert_array_equal(twice, np.concatenate([once, once], axis=1))
  for name in ("label", "augment"):
    np.testing.assert_array_equal(cond[name], before[name])
  unmasked = {name: BATCH[name] for name in ("x", "cond")}
  apply, batch = two_stream.lay_out(print, unmasked, 1)
  assert apply is print and batch is unmasked
  mask = np.array([True, False]).reshape(2, 1, 1)
  _, batch = two_stream.lay_out(print, dict(x=BATCH["x"], mask=mask), 2)
  np.testing.assert_array_equal(batch["mask"], np.broadcast_to(mask, (2, 8, 1)))


@pytest.mark.parametrize("streams", [1, 2])
def test_padding_is_hidden(streams):
  mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)[..., None]
  _, batch = two_stream.lay_out(print, BATCH | dict(mask=mask), streams)
  for a, was in (batch["x"], BATCH["x"]), (batch["cond"]["action"], BATCH["cond"]["action"]):
    np.testing.assert_array_equal(a, np.tile(np.where(mask, was, 0.0), (1, streams, 1)))
  np.testing.assert_array_equal(batch["cond"]["label"], [0, -1])


@pytest.mark.parametrize(
  "mask", [np.ones((2, 4, 1)), np.ones((2, 4), bool), np.ones((2, 3, 1), bool)], ids=np.shape
)
def test_a_mask_that_does_not_match_x_is_refused(mask):
  with pytest.raises(ValueError, match="data: mask of shape"):
    two_stream.lay_out(print, dict(x=BATCH["x"], mask=mask), 2)


def test_other_numbers_of_streams_are_refused():
  with pytest.raises(ValueError, match="streams=3"):
    two_stream.lay_out(print, BATCH, 3)


MEAN = posterior.minibatch_mean


def test_the_conditioning_of_an_objective_is_its_own_or_that_of_its_streams():
  spec = two_stream.TwoStream(posterior=MEAN, reference=4)
  found = two_stream.of(dict(conditioning=spec))
  assert found is spec and (found.streams, found.reference) == (2, 4)
  for arguments in ({}, dict(streams=1), dict(conditioning=None)):
    assert two_stream.of(arguments) == two_stream.OneStream()
  assert two_stream.of(dict(streams=2)) == two_stream.TwoStream()


@pytest.mark.parametrize(
  "given", [dict(reference=0, posterior=MEAN), dict(reference=4)], ids=["none", "unread"]
)
def test_a_reference_batch_that_nothing_reads_is_refused(given):
  with pytest.raises(ValueError, match=f"^reference={given['reference']}: .*set it to 1"):
    two_stream.TwoStream(**given)
