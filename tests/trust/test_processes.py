"""Two processes of one run: one is killed, or gets a signal.

Once each here, ten times with `make trust`.
"""

import signal
import sys

import pytest

from dfim.checkpoints import checkpoint
from dfim.training import preemption
from tests import trust

TIMES = trust.scaled(1, 10)
PATIENCE = 60  # seconds for the other process to notice


def running(workdir, every):
  """Two processes that have trained some steps together."""
  processes = trust.start_all(2, trust.trainer(workdir, f"--config.checkpoint_every={every}"))
  log = workdir / "metrics.jsonl"
  try:
    trust.until(lambda: log.exists() and log.read_text().count("\n") > 5, processes[0])
  except AssertionError as error:
    processes[1].kill()
    raise AssertionError(processes[1].communicate()[1]) from error
  return processes


@pytest.mark.parametrize("time", range(TIMES))
def test_one_is_killed_and_the_other_ends_with_a_cause(time, tmp_path):
  processes = running(tmp_path, every=5)
  trust.until(lambda: checkpoint.steps(str(tmp_path)), processes[0])
  killed, other = processes[:: -1 if time % 2 else 1]  # the coordinator is the first
  killed.send_signal(signal.SIGKILL)
  printed, _ = trust.outputs([other, killed], PATIENCE)
  assert other.returncode not in (0, preemption.EXIT_CODE), printed
  causes = "connection", "heartbeat", "unavailable", "peer", "task"
  assert any(word in printed.lower() for word in causes), printed
  assert checkpoint.steps(str(tmp_path)), "what was saved is there"


@pytest.mark.slow
def test_one_cannot_read_on_and_both_end(tmp_path):
  flags = "--config.data={'name': 'tests.trust.config.ends'}", "--config.checkpoint_every=3"
  processes = trust.start_all(2, trust.trainer(tmp_path, *flags))
  printed = trust.outputs(processes, seconds=120)  # of which 60 to begin
  assert [p.returncode for p in processes] == [1, 1], printed
  assert "the disk is gone" in printed[1]


@pytest.mark.slow
def test_a_checkpoint_that_one_cannot_read_is_skipped_by_both_at_once(tmp_path):
  """Orbax's reading waits five minutes for a process that does not take part."""
  command = [sys.executable, "-m", "tests.trust.half_read", f"--workdir={tmp_path}"]
  for printed in trust.finish(trust.start_all(2, command), seconds=200):
    assert "restored 1.0" in printed


@pytest.mark.parametrize("time", range(TIMES))
@pytest.mark.parametrize(
  "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_one_gets_a_signal_and_both_save_the_same_step(number, time, tmp_path):
  processes = running(tmp_path, every=(1, 100_000)[time % 2])  # amid saves, and far from any
  processes[time // 2 % 2].send_signal(number)
  printed = trust.outputs(processes, PATIENCE)
  assert [p.returncode for p in processes] == [preemption.EXIT_CODE] * 2, printed
  step = checkpoint.steps(str(tmp_path))[-1]
  for text in printed:
    assert f"after step {step}" in text


@pytest.mark.slow
def test_a_signal_before_the_first_step_of_a_resumed_run_stops_it(tmp_path):
  trust.finish([trust.start(trust.trainer(tmp_path, "--config.steps=40"))])
  processes = trust.start_all(2, trust.trainer(tmp_path))
  known = [iter(p.stderr.readline, "") for p in processes]
  assert any("Restored" in line for line in known[1])
  processes[1].send_signal(signal.SIGTERM)
  codes = [p.wait(timeout=PATIENCE) for p in processes]
  for p in processes:
    p.communicate()
  assert codes == [preemption.EXIT_CODE] * 2
  assert checkpoint.steps(str(tmp_path))[-1] < 100
