"""Which data a run is of: one line of facts, the same for the same data and for no other."""

import functools
import itertools

import numpy as np
import pytest

from dfim.data import base, identity
from dfim.data.images import digits
from dfim.data.synthetic import walk

PIXELS = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 1), np.uint8)


def found(x, **more):
  return identity.identity(functools.partial(base.batches, dict(x=x, **more), 10, 0))


def test_the_identity_is_of_the_examples_whatever_the_batch_size_the_seed_and_rounding():
  a, b = (identity.identity(functools.partial(digits.digits, *how)) for how in ((32, 0), (7, 3)))
  assert a == b and (a["examples"], a["shape"], a["dtype"]) == (1437, [8, 8, 1], "float32")
  assert identity.describe(a).startswith("1437 examples of float32 [8, 8, 1], hash ")
  x = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
  assert found(x) == found(x * np.float32(1 + 1e-7))
  assert found(x) != found(x * np.float32(1.1))


@pytest.mark.parametrize(
  "other",
  [
    dict(x=255 - PIXELS),
    dict(x=PIXELS[:-1]),
    dict(x=PIXELS[::-1]),
    dict(x=np.where(np.arange(1000)[:, None, None, None] == 999, PIXELS ^ 1, PIXELS)),
    dict(x=PIXELS, label=np.zeros(1000, np.int32)),
  ],
  ids=["inverted", "one fewer", "reversed", "one bit of the last", "with labels"],
)
def test_other_data_have_another_identity(other):
  assert found(**other) != found(PIXELS)


def test_a_stream_is_known_by_its_first_examples():
  source = lambda tokens, size: functools.partial(walk.walk, size, 0, tokens=tokens)
  facts = identity.identity(source(6, 256))
  assert facts["examples"] is None and facts == identity.identity(source(6, 256))
  assert facts != identity.identity(source(7, 256))
  small = list(itertools.islice(source(6, 10)(), 7))
  first = np.concatenate([batch["x"] for batch in small])[: identity.LOOKED_AT]
  assert identity.identity(source(6, 10))["sha256"] == identity._digest(dict(x=first))
