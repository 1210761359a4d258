"""Looks at the machine again and again, and tells slots whether it can bear another job."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from builder.runtime.changes import Change
from builder_worker.drain import Drain
from builder_worker.pressure import MAX_PRESSURE, Pressure, Reading, Thresholds, stalled

LOOK_INTERVAL = 5.0
"""Seconds between looks: a job that has begun in the meantime does no harm, and a look costs a tenth of a millisecond."""

log = logging.getLogger("builder_worker")


def read(work_root: Path) -> Reading:
    """Look at this machine, and at the file system on which jobs write. What can't be read is left out."""
    disk_free, disk_size, available, memory = None, 0, None, 0
    while not work_root.exists() and work_root != work_root.parent:
        work_root = work_root.parent
    with suppress(OSError):
        disk = os.statvfs(work_root)
        disk_free, disk_size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        available, memory = told["MemAvailable"], told["MemTotal"]
    return Reading(
        disk_free=disk_free, disk_size=disk_size, memory_available=available, memory_size=memory, pressure=_pressure()
    )


def _pressure() -> dict[str, float]:
    found = {}
    for name in MAX_PRESSURE:
        with suppress(OSError):  # a kernel that does not tell it, or that was told not to (psi=0)
            value = stalled(name, Path("/proc/pressure", name).read_text("ascii"))
            if value is not None:
                found[name] = value
    if not found:
        found["load"] = os.getloadavg()[0] / (os.cpu_count() or 1)
    return found


@define(eq=False)
class Guard:
    """What is short on the machine, as far as was seen; ``reason`` is "" where it can bear another job."""

    pressure: Pressure
    read: Callable[[], Reading]
    reason: str = ""
    changed: Change = field(factory=Change)
    """There is a reason now, or none any more."""

    @classmethod
    def of(cls, thresholds: Thresholds, work_root: Path) -> "Guard":
        """Return what looks at this machine."""
        return cls(Pressure(thresholds), lambda: read(work_root))

    async def run(self, drain: Drain) -> None:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            await self.look(drain)

    async def look(self, drain: Drain) -> None:
        """Look once; say in the log what begins and what ends."""
        reading = await trio.to_thread.run_sync(self.read)
        before = self.reason
        self.reason = self.pressure.look(reading, trio.current_time(), is_working=drain.is_working)
        if bool(before) == bool(self.reason):
            return
        if self.reason:
            log.warning("takes no job: %s", self.reason)
        else:
            log.info("takes jobs again")
        self.changed.announce()

    async def wait_relieved(self) -> None:
        """Wait until the machine can bear another job."""
        while self.reason:
            await self.changed.next.wait()
