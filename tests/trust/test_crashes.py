"""Killed at any file operation of a save, of a rename or of a removal: there is a step to restore.

Every tenth point here, every one with `make trust`: more than a hundred.
"""

import json
import subprocess
import sys

from tests import trust
from tests.trust import crash

STRIDE = trust.scaled(15, 1)


def test_a_kill_at_any_file_operation_leaves_a_step_to_restore(tmp_path, record_property):
  command = [sys.executable, "-m", "tests.trust.crash", str(tmp_path), "0", str(STRIDE)]
  process = trust.start(command, stdout=subprocess.PIPE)
  printed, errors = process.communicate(timeout=1800)
  assert process.returncode == 0, errors
  points = [json.loads(line) for line in printed.splitlines()]
  record_property("points", len(points))
  assert len(points) >= trust.scaled(5, 100)
  for point in points:
    assert point["ended"] <= point["restored"] <= point["ended"] + 1, point
    assert len(point["left"]) <= crash.KEEP and all(name.isdigit() for name in point["left"])
  assert points[-1]["restored"] == crash.STEPS, "the last was not killed"
