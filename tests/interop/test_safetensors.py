"""What is written comes back bit for bit; a header that says what cannot be is refused."""

import json

import ml_dtypes
import numpy as np
import pytest

from dfim.interop import safetensors

ARRAYS = {
  "b.kernel": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
  "a": np.arange(5),
  "bf16": np.linspace(0, 1, 3).astype(ml_dtypes.bfloat16),
  "scalar": np.array(2.5),
  "none": np.zeros((0, 3), np.float16),
  "bool": np.array([True, False]),
}


def test_round_trip_is_bit_exact(tmp_path):
  safetensors.write(tmp_path / "a.safetensors", ARRAYS)
  back = safetensors.read(tmp_path / "a.safetensors")
  assert set(back) == set(ARRAYS)
  for name, a in ARRAYS.items():
    assert (back[name].dtype, back[name].shape) == (a.dtype, a.shape)
    assert back[name].tobytes() == a.tobytes()


def test_reads_a_file_written_by_hand_as_the_format_says(tmp_path):
  header = b'{"x":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}  '
  data = np.array([1.5, -2.0], "<f4").tobytes()
  (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + data)
  np.testing.assert_array_equal(safetensors.read(tmp_path / "x")["x"], [[1.5, -2.0]])


def test_a_strange_type_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="of a type that safetensors has not"):
    safetensors.write(tmp_path / "c", {"c": np.array(["text"])})
  assert not (tmp_path / "c").exists()


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
  return dict(dtype=dtype, shape=list(shape), data_offsets=list(offsets))


HOSTILE = {
  "gap": ({"x": entry(offsets=(8, 16))}, 16),
  "overlap": ({"x": entry(), "y": entry(offsets=(4, 12))}, 12),
  "the same bytes twice": ({"x": entry(), "y": entry()}, 8),
  "data that belongs to none": ({"x": entry()}, 9),
  "beyond the end": ({"x": entry(offsets=(0, 8))}, 4),
  "backwards": ({"x": entry(shape=(0,), offsets=(8, 0))}, 8),
  "wrong length": ({"x": entry(shape=(3,))}, 8),
  "a terabyte": ({"x": entry(shape=(2**38,))}, 8),
  "overflow": ({"x": entry(shape=(2**62, 4, 2))}, 8),
  "nothing, absurdly": ({"x": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}, 0),
  "negative": ({"x": entry(shape=(-1, -2))}, 8),
  "not a number": ({"x": entry(shape=(2.0,))}, 8),
  "true": ({"x": entry(shape=(True, 2))}, 8),
  "unknown type": ({"x": entry("O8")}, 8),
  "no type": ({"x": entry(dtype=["F32"])}, 8),
  "no entry": ({"x": 3}, 8),
  "no object": ([1, 2], 0),
}


def raw(path, header, size):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
  return path


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses_a_false_header(case, tmp_path):
  with pytest.raises(ValueError, match="no sound safetensors") as error:
    safetensors.read(raw(tmp_path / "x.safetensors", *HOSTILE[case]))
  assert "x.safetensors" in str(error.value) and "\n" not in str(error.value)


DAMAGED = {
  "empty": b"",
  "four bytes": b"\0\0\0\0",
  "header longer than the file": (2**60).to_bytes(8, "little") + b"{}",
  "no JSON": b"\4\0\0\0\0\0\0\0{{{{",
  "no text": b"\2\0\0\0\0\0\0\0\xff\xfe",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_refuses_a_damaged_file(case, tmp_path):
  (tmp_path / "x").write_bytes(DAMAGED[case])
  with pytest.raises(ValueError, match="no sound safetensors"):
    safetensors.read(tmp_path / "x")


def test_refuses_a_file_cut_short_anywhere(tmp_path):
  safetensors.write(tmp_path / "whole", ARRAYS)
  data = (tmp_path / "whole").read_bytes()
  for size in range(0, len(data), 7):
    (tmp_path / "cut").write_bytes(data[:size])
    with pytest.raises(ValueError, match="no sound safetensors"):
      safetensors.read(tmp_path / "cut")
