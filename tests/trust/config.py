"""The run of the experiments: IMM on digits, a tiny network, no end to wait for."""

from configs import imm_digits
from tests import trust


def get_config():
  """Changed by flags."""
  return trust.small(imm_digits.get_config("smoke"), steps=100_000, every=100_000)


def noise(x, grid):
  """A sampler that returns what it starts from."""
  del grid
  return x
