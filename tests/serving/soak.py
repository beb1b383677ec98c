"""Many jobs through a hub: prints the megabytes of its process after each thousand.

python tests/serving/soak.py API JOBS
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from pathlib import Path

from calotype.serving.front.jobs import Owner, Submission
from calotype.serving.front.settings import ServeSettings
from calotype.serving.front.start import open_store, running_hub
from calotype.serving.job import JobRequest

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))
AT_ONCE = 8


def megabytes():
    """Of this process's own memory, swapped out or not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = [int(one.split()[1]) for one in lines if one.startswith(("RssAnon", "VmSwap"))]
    return sum(found) / 1024


async def one(hub, number, api):
    asked = Submission(
        request=JobRequest(prompt=f"a fox {number}", seed=number),
        owner=Owner(None, f"client {number % AT_ONCE}"),
        api=api,
        outlives=api == "native",
        previews="steps",
        preview_side=16,
    )
    job = await hub.submit(asked)
    async for event in hub.events(job):
        if number % 10 == 0 and event.kind == "step":
            hub.cancel(job)
    hub.release(job)


async def main(api, jobs):
    with tempfile.TemporaryDirectory() as folder:
        settings = ServeSettings(engine_command=FAKE, data=Path(folder))
        async with running_hub(settings, open_store(settings)) as hub:
            for number in range(0, jobs, AT_ONCE):
                await asyncio.gather(*(one(hub, number + k, api) for k in range(AT_ONCE)))
                if (number + AT_ONCE) % 1000 == 0:
                    gc.collect()
                    print(f"{megabytes():.2f}", flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
