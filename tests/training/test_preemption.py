"""Signals of one process; those of several are in tests/trust/test_processes.py."""

import os
import signal
import threading

import pytest

from dfim.training import preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_noted_and_the_handlers_come_back(number):
  before = signal.getsignal(number)
  with preemption.watch() as notice:
    assert not notice.early(5) and not notice.reached(6)
    os.kill(os.getpid(), number)
    assert notice.reached(7) and notice.early(7)
  assert signal.getsignal(number) is before


def test_the_second_ctrl_c_goes_to_the_handler_from_before():
  with preemption.watch() as notice, pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)
    assert notice.reached(1)
    os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_handles_no_signal():
  found = []

  def work():
    with preemption.watch() as notice:
      found.append(notice.reached(1))

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [False] and signal.getsignal(signal.SIGTERM) is before
