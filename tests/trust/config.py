"""The run of the experiments: IMM on digits, a tiny network, no end to wait for."""

from configs import imm_digits
from dfim.data.images import digits
from tests import trust


def get_config():
  return trust.small(imm_digits.get_config("smoke"), steps=100_000, every=100_000)


def noise(model, key, x, s, t, end):
  del model, key, s, t, end
  return x


def ends(batch_size, seed, start=0, *, process=(0, 1)):
  """The digits, which the second process can read thirty batches of."""
  batches = digits.digits(batch_size, seed, start, process=process)
  for n, batch in enumerate(batches, start):
    if process[0] == 1 and n == 30:
      raise OSError("the disk is gone")
    yield batch
