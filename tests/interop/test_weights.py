"""Every kind of file gives the same arrays; pickles only where they are allowed."""

import pickle

import numpy as np
import pytest

from dfim.interop import safetensors, weights

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
WANTED = {"params": {"a": {"kernel": np.zeros((3, 2), np.float32)}, "b": np.zeros(2, np.float32)}}


def write(path):
  if path.suffix == ".npz":
    np.savez(path, **ARRAYS)
  elif path.suffix == ".safetensors":
    safetensors.write(path, ARRAYS)
  else:
    path.write_bytes(pickle.dumps(ARRAYS))
  return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pkl", ".pickle", ".pt", ".pth"])
def test_one_reader_for_every_kind(suffix, tmp_path):
  params = weights.load(write(tmp_path / f"net{suffix}"), WANTED, allow_pickle=True)["params"]
  np.testing.assert_array_equal(params["a"]["kernel"], ARRAYS["a.weight"].T)


@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_pickles_are_opt_in_and_not_even_opened(suffix, tmp_path):
  with pytest.raises(ValueError, match="net.* allow_pickle"):
    weights.read(write(tmp_path / f"net{suffix}"))


def test_what_is_no_file_of_weights_is_named(tmp_path):
  (tmp_path / "net.h5").touch()
  for path in (tmp_path / "net.npz", tmp_path / "net.h5", None, 3, ""):
    with pytest.raises((FileNotFoundError, ValueError), match=f"^weights={path or ''}"):
      weights.read(path)
