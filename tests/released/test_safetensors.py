"""What is written comes back bit for bit; a header that says what cannot be is refused."""

import json

import ml_dtypes
import numpy as np
import pytest

from dfim.released import safetensors

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
  with pytest.raises(ValueError, match="c is complex64"):
    safetensors.write(tmp_path / "c", {"c": np.zeros(2, np.complex64)})
  assert not (tmp_path / "c").exists()


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
  return dict(dtype=dtype, shape=list(shape), data_offsets=list(offsets), **more)


HOSTILE = {
  "gap": ({"x": entry(offsets=(8, 16))}, 16, "'x' at byte 8 leaves a gap"),
  "overlap": ({"x": entry(), "y": entry(offsets=(4, 12))}, 12, "'y' at byte 4 overlaps"),
  "the same bytes twice": ({"x": entry(), "y": entry()}, 8, "at byte 0 overlaps"),
  "data that belongs to none": ({"x": entry()}, 9, "1 bytes after the last array"),
  "beyond the end": ({"x": entry(offsets=(0, 8))}, 4, "of 4 bytes"),
  "backwards": ({"x": entry(shape=(0,), offsets=(8, 0))}, 8, "'x' is at"),
  "wrong length": ({"x": entry(shape=(3,))}, 8, "is not at"),
  "a terabyte": ({"x": entry(shape=(2**38,))}, 8, "is not at"),
  "overflow": ({"x": entry(shape=(2**62, 4, 2))}, 8, "is not at"),
  "nothing, absurdly": ({"x": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}, 0, "no sound"),
  "negative": ({"x": entry(shape=(-1, -2))}, 8, "is of shape"),
  "not a number": ({"x": entry(shape=(2.0,))}, 8, "is of shape"),
  "true": ({"x": entry(shape=(True, 2))}, 8, "is of shape"),
  "too many axes": ({"x": entry(shape=(1,) * 40 + (2,))}, 8, "is of shape"),
  "unknown type": ({"x": entry("O8")}, 8, "is of type O8"),
  "no type": ({"x": entry(dtype=["F32"])}, 8, "is of type"),
  "more fields": ({"x": entry(strides=[1])}, 8, "and nothing else"),
  "no entry": ({"x": 3}, 8, "and nothing else"),
  "no object": ([1, 2], 0, "no JSON object"),
}


def raw(path, header, size):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
  return path


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses_a_false_header(case, tmp_path):
  header, size, message = HOSTILE[case]
  with pytest.raises(ValueError, match=message) as error:
    safetensors.read(raw(tmp_path / "x.safetensors", header, size))
  assert "x.safetensors" in str(error.value) and "\n" not in str(error.value)


DAMAGED = {
  "empty": (b"", "a header of 0 bytes in a file of 0"),
  "four bytes": (b"\0\0\0\0", "in a file of 4"),
  "header longer than the file": ((2**60).to_bytes(8, "little") + b"{}", "in a file of 10"),
  "no JSON": (b"\4\0\0\0\0\0\0\0{{{{", "no JSON"),
  "no text": (b"\2\0\0\0\0\0\0\0\xff\xfe", "no JSON"),
  "a name twice": (b'\x0f\0\0\0\0\0\0\0{"a":1,"a":2}  ', "a name twice"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_refuses_a_damaged_file(case, tmp_path):
  data, message = DAMAGED[case]
  (tmp_path / "x").write_bytes(data)
  with pytest.raises(ValueError, match=message):
    safetensors.read(tmp_path / "x")


def test_refuses_a_file_cut_short_anywhere(tmp_path):
  safetensors.write(tmp_path / "whole", ARRAYS)
  data = (tmp_path / "whole").read_bytes()
  for size in range(0, len(data), 7):
    (tmp_path / "cut").write_bytes(data[:size])
    with pytest.raises(ValueError, match="no sound safetensors"):
      safetensors.read(tmp_path / "cut")
