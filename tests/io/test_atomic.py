"""Files: JSON without NaN, and folders that nothing can be written to."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.io import atomic

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
  "value, expected",
  [
    (NAN, None),
    ([1, INF, (-INF, 2.5)], [1, None, [None, 2.5]]),
    ({"a": {"b": np.float32(NAN), "c": np.int64(3)}}, {"a": {"b": None, "c": 3}}),
    (np.array(INF), None),
    (np.array([[1.5, NAN]], np.float16), [[1.5, None]]),
    (jnp.array([2.0, jnp.inf], jnp.bfloat16), [2.0, None]),
    ([None, "nan", True, np.bool_(False), np.str_("a")], [None, "nan", True, False, "a"]),
  ],
)
def test_json_has_null_for_what_is_not_finite(tmp_path, value, expected):
  atomic.replace_json(tmp_path / "a.json", value)
  refuse = lambda word: pytest.fail(f"{word} is not JSON")
  assert json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse) == expected


def test_what_cannot_be_written_leaves_the_old_file_and_is_known_before(tmp_path):
  path = tmp_path / "a.json"
  atomic.replace_json(path, dict(a=1))
  for value in (object(), 1j, np.complex64(1), {"a": {1, 2}}):
    with pytest.raises(TypeError):
      atomic.replace_json(path, value)
  assert json.loads(path.read_text()) == dict(a=1)
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
  atomic.check_writable(tmp_path / "new" / "a.npz")
  assert (tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())
  (tmp_path / "file").touch()
  with pytest.raises(OSError):
    atomic.check_writable(tmp_path / "file" / "a.npz")
  with pytest.raises(OSError):  # a name that the file system does not take
    atomic.check_writable(tmp_path / ("a" * 300))
