"""A long run neither grows nor compiles again: 2,000 steps, or as many as SOAK_S seconds allow."""

import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from tests import trust

STEPS, SECONDS = 2000, int(os.environ.get("SOAK_S", 0))
SAVE, LOG = 50, 10  # every so many steps


@pytest.mark.slow
def test_memory_programs_and_descriptors_stay_as_they_are(tmp_path, record_property):
  steps = 10**9 if SECONDS else STEPS
  fields = dict(steps=steps, checkpoint_every=SAVE, log_every=LOG)
  flags = [f"--config.{name}={value}" for name, value in fields.items()]
  with (tmp_path / "log").open("w") as log:
    process = trust.start(trust.trainer(tmp_path, *flags), stderr=log)
  folder, descriptors, start = pathlib.Path(f"/proc/{process.pid}/fd"), [], time.monotonic()
  written = tmp_path / "metrics.jsonl"
  begun = lambda: written.exists() and written.read_text().count("\n") > 20
  trust.until(begun, process, seconds=600)  # descriptors of the start are not counted
  while process.poll() is None:
    descriptors.append(len(list(folder.iterdir())))
    if SECONDS and time.monotonic() - start > SECONDS:
      process.send_signal(signal.SIGTERM)
      process.wait()
    time.sleep(0.5)
  assert process.returncode == (75 if SECONDS else 0), (tmp_path / "log").read_text()
  lines = [json.loads(line) for line in written.read_text().splitlines()]
  late = [line for line in lines[:-1] if line["step"] > 200]
  step, memory = (np.array([line[k] for line in late]) for k in ("step", "memory_bytes"))
  growth = np.polyfit(step, memory, 1)[0] * (step[-1] - step[0]) / memory.mean()
  record_property("memory growth", float(growth))
  assert growth < 0.01
  assert len({line["compilations"] for line in late}) == 1
  seconds = np.array([LOG / line["steps_per_second"] for line in late])
  saved = step % SAVE == LOG  # a save is written some steps after it was due
  plain, slowed = np.median(seconds[~saved]), np.median(seconds[saved])
  record_property("ms a save holds up", round(1000 * float(slowed - plain)))
  record_property("ms a step", round(1000 * float(plain) / LOG, 1))
  first, second = np.array_split(descriptors, 2)
  record_property("descriptors", [int(first.max()), int(second.max())])
  assert second.max() <= first.max() + 2, "a save holds some for a moment"
