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
  with pytest.raises(ValueError, match="net.* a pickle; pass allow_pickle"):
    weights.read(write(tmp_path / f"net{suffix}"))


def test_an_npz_with_a_pickle_in_it_is_refused_whatever_is_allowed(tmp_path):
  np.savez(tmp_path / "net.npz", a=np.array([{}], object))
  with pytest.raises(ValueError, match="net.npz is no sound npz of arrays"):
    weights.read(tmp_path / "net.npz", allow_pickle=True)


def test_what_is_no_file_of_weights_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="net.npz: no such file"):
    weights.read(tmp_path / "net.npz")
  for name, message in [("net.npz", "no sound npz"), ("net.h5", "give one of .npz, .safetensors")]:
    (tmp_path / name).write_bytes(b"nothing of that kind")
    with pytest.raises(ValueError, match=message):
      weights.read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pkl"])
@pytest.mark.parametrize(
  "wrong, place",
  [
    (np.array([0, np.nan], np.float32), "b, our b: nan at index 1"),
    (np.array([np.inf, 0], np.float16), "b, our b: inf at index 0"),
    (np.array([0, 1e300]), "b, our b: inf at index 1"),
    (np.array([0, 1]), "b, our b of int64"),
    (np.array([True, False]), "b, our b of bool"),
  ],
)
def test_false_numbers_are_named_in_every_file(wrong, place, suffix, tmp_path, monkeypatch):
  monkeypatch.setitem(ARRAYS, "b", wrong)
  path = write(tmp_path / f"net{suffix}")
  with pytest.raises(ValueError, match=f"^weights={path}: {place}"):
    weights.load(path, WANTED, allow_pickle=True)


@pytest.mark.parametrize("path", [None, 3, ""])
def test_what_is_no_path_is_named(path):
  with pytest.raises(ValueError, match="^weights=.*: give a path"):
    weights.read(path)


def test_the_path_is_named_where_a_parameter_does_not_fit(tmp_path):
  wanted = {"params": {**WANTED["params"], "c": np.zeros(2)}}
  with pytest.raises(ValueError, match="weights=.*net.npz: our c: absent"):
    weights.load(write(tmp_path / "net.npz"), wanted)
