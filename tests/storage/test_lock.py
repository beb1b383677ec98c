import os
import subprocess
import sys
import time

import pytest

from calotype.errors import UsageError
from calotype.storage.lock import locked


def test_a_second_trainer_is_refused_until_the_first_ends(tmp_path):
    with locked(tmp_path / ".lock"):
        with pytest.raises(UsageError, match="another process"), locked(tmp_path / ".lock"):
            pass
    with locked(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("kind", ["spawned", "forked"])
def test_orphans_of_a_killed_trainer_do_not_hold_it(tmp_path, kind):
    child = {
        "spawned": "subprocess.Popen(['sleep', '20'], close_fds=False)",
        "forked": "time.sleep(20) if os.fork() == 0 else None",
    }[kind]
    script = (
        "import os, subprocess, sys, time, pathlib\n"
        "from calotype.storage.lock import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r}) / '.lock'):\n"
        f"    {child}\n"
        "    print('held', flush=True)\n"
        "    time.sleep(20)\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert trainer.stdout.readline() == b"held\n"
        with pytest.raises(UsageError), locked(tmp_path / ".lock"):
            pass
        trainer.kill()
        trainer.wait()
        time.sleep(0.05)
        with locked(tmp_path / ".lock"):
            pass
    finally:
        os.killpg(trainer.pid, 9)
        trainer.stdout.close()
