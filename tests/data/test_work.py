"""Work in processes: nothing outlives a parent that was killed, and changed data are refused."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from PIL import Image

from calotype.data.columns import Selection
from calotype.data.work import Chunks, Work, open_for_work, source_of, usable_cores
from calotype.errors import CalotypeError


def folder_of(root, count):
    for number in range(count):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{number}.png")
    return root


def test_chunks_cover_everything_once(tmp_path):
    chunks = Chunks(open_for_work(folder_of(tmp_path, 7), "", Selection()), 3)
    assert [(c.start, c.stop) for c in chunks] == [(0, 3), (3, 6), (6, 7)]
    assert len(source_of(chunks[0].data)) == 7


def test_other_processes_refuse_data_that_changed(tmp_path, monkeypatch):
    data = open_for_work(folder_of(tmp_path, 3), "", Selection())
    monkeypatch.setattr("calotype.data.work._kept", {})  # as in another process
    source_of(data)
    monkeypatch.setattr("calotype.data.work._kept", {})
    (tmp_path / "new.png").write_bytes(b"x")
    with pytest.raises(CalotypeError, match="changed while it was worked on; run the command"):
        source_of(data)


def test_in_this_process_the_work_keeps_its_order():
    assert list(Work().over([3, 1, 2], str)) == ["3", "1", "2"]
    assert usable_cores() >= 1


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_workers_leave_when_their_parent_is_killed(tmp_path):
    (tmp_path / "tasks.py").write_text("import os\ndef task(item):\n    return os.getpid()\n")
    (tmp_path / "main.py").write_text(
        textwrap.dedent("""
        import time
        from calotype.data.work import Work
        from tasks import task
        if __name__ == "__main__":
            for pid in Work(processes=2).over(list(range(2)), task):
                print(pid, flush=True)
                time.sleep(60)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    worker = int(process.stdout.readline())
    assert _running(worker)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 20
    while _running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _running(worker)
