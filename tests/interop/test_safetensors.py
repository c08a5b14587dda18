"""Arrays come back bit for bit; false headers are refused (`tests/trust/test_hostile_files.py`)."""

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


def test_round_trip_is_bit_exact_and_a_file_cut_short_anywhere_is_refused(tmp_path):
  safetensors.write(tmp_path / "a.safetensors", ARRAYS)
  back = safetensors.read(tmp_path / "a.safetensors")
  assert set(back) == set(ARRAYS)
  for name, a in ARRAYS.items():
    assert (back[name].dtype, back[name].shape) == (a.dtype, a.shape)
    assert back[name].tobytes() == a.tobytes()
  safetensors.write(tmp_path / "whole", ARRAYS)
  data = (tmp_path / "whole").read_bytes()
  for size in range(0, len(data), 7):
    (tmp_path / "cut").write_bytes(data[:size])
    with pytest.raises(ValueError, match="no sound safetensors"):
      safetensors.read(tmp_path / "cut")


def test_reads_a_file_written_by_hand_and_writes_no_strange_type(tmp_path):
  header = b'{"x":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}  '
  data = np.array([1.5, -2.0], "<f4").tobytes()
  (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + data)
  np.testing.assert_array_equal(safetensors.read(tmp_path / "x")["x"], [[1.5, -2.0]])
  with pytest.raises(ValueError, match="of a type that safetensors lacks"):
    safetensors.write(tmp_path / "c", {"c": np.array(["text"])})
  assert not (tmp_path / "c").exists()
