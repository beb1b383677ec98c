"""The first signal is a wish, the second an end."""

import os
import signal
import subprocess
import sys

import pytest

from calotype.training.signals import stop_on_signals

HANGS = """
import sys, time
from calotype.training.signals import stop_on_signals
with stop_on_signals():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
        print("going on", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_34_a_lost_connection_asks_for_the_end_as_sigterm_does():
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop and stop.exit_code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_22_the_second_signal_ends_what_hangs(number):
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        for _ in range(4):
            assert process.stdout.readline() == b"going on\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == -number
