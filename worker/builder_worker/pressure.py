"""Whether the machine can bear another job: a disk that is nearly full, memory that is short, and what stalls all programs.

Pure: readings and the time come in, what is short goes out. What a worker's own jobs make of a machine is no reason: they
are there to use it. So the time that programs stall for CPUs and disks counts only for a worker that has had no job for
a while, and its load too. A disk or a memory that is used up counts, whoever has done that.
"""

import re
from collections.abc import Iterator, Mapping

from attrs import define, evolve, field, frozen

from builder.errors import InvalidOptions
from builder.messages import GIB
from builder.model import printable
from builder.sizes import format_size

MIN_FREE = GIB
"""Bytes of the disk that must be free, unless the operator says how many; of a small disk one part in ten."""

MIN_MEMORY = 512 * 1024**2
"""Bytes of memory that must be available, unless the operator says how many; of a small machine one part in twenty."""

MAX_PRESSURE: Mapping[str, float | None] = {"memory": 20.0, "io": 90.0, "cpu": None, "load": 16.0}
"""What is borne unless the operator says otherwise; None is any.

Percent of the last minute in which no program got on for want of memory, or of the disk; for CPUs, in which any had to
wait for one, which is so all the time where ``make -j`` is at work. Where the kernel does not tell these, the load: programs
that want a CPU for each core. Sixteen times as many as there are cores is a machine of several workers that is lost.
"""

SETTLING = 60.0
"""Seconds after a job of its own for which a worker takes what it sees for the job's doing: of so long the means are."""

_EASED = 0.75
"""Of what begins a shortage, the part to which it must fall until it is over; of what must be free, as much more."""

_SOME_OR_FULL = re.compile(r"^(some|full) .*?avg60=([0-9.]+)", re.ASCII | re.MULTILINE)


@frozen(kw_only=True)
class Thresholds:
    """What is borne. ``min_free`` and ``min_memory`` are bytes, None where the operator has not said."""

    min_free: int | None = None
    min_memory: int | None = None
    most: Mapping[str, float | None] = MAX_PRESSURE

    def with_pressure(self, said: str) -> "Thresholds":
        """Return them with one such as ``io=50`` or ``load=none``. Raises InvalidOptions."""
        name, _, value = said.partition("=")
        number = re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,3})?", value, re.ASCII)
        if name not in MAX_PRESSURE or not (number or value == "none") or (number and not float(value)):
            raise InvalidOptions(
                f"{printable(said[:50])}: write memory=PERCENT, io=PERCENT, cpu=PERCENT or load=NUMBER, or none"
            )
        return evolve(self, most={**self.most, name: float(value) if number else None})


@frozen(kw_only=True)
class Reading:
    """What was read of a machine. ``pressure`` has percent by the names of ``MAX_PRESSURE``, and the load of each core.

    Bytes are None where nothing tells them.
    """

    disk_free: int | None = None
    disk_size: int = 0
    memory_available: int | None = None
    memory_size: int = 0
    pressure: Mapping[str, float] = field(factory=dict)


def stalled(name: str, told: str) -> float | None:
    """Return the percent that the kernel tells in a file of /proc/pressure; None where it does not."""
    found = dict(_SOME_OR_FULL.findall(told))
    value = found.get("some" if name == "cpu" else "full")
    return None if value is None else float(value)


@define(eq=False)
class Pressure:
    """What is short, from one reading to the next. It ends later than it began, so that it does not come and go."""

    thresholds: Thresholds
    _short: set[str] = field(factory=set)
    _worked: float = -SETTLING

    def look(self, reading: Reading, now: float, *, is_working: bool) -> str:
        """Return what is short now, in words, and "" for nothing; ``now`` are seconds of any clock that nobody sets."""
        if is_working:
            self._worked = now
        found = dict(self._find(reading))
        if now - self._worked < SETTLING:
            found = {
                name: said
                for name, said in found.items()
                if name in ("disk", "available", "memory") or name in self._short
            }
        self._short = {*found}
        return ", ".join(found.values())

    def _find(self, reading: Reading) -> Iterator[tuple[str, str]]:
        limits = self.thresholds
        if reading.disk_free is not None:
            least = min(MIN_FREE, reading.disk_size // 10) if limits.min_free is None else limits.min_free
            if reading.disk_free < self._least("disk", least):
                yield "disk", f"less than {format_size(least)} free on the disk (--min-free)"
        if reading.memory_available is not None:
            least = min(MIN_MEMORY, reading.memory_size // 20) if limits.min_memory is None else limits.min_memory
            if reading.memory_available < self._least("available", least):
                yield "available", f"less than {format_size(least)} of memory available (--min-memory)"
        for name, value in reading.pressure.items():
            most = limits.most.get(name)
            if most is not None and value >= most * (_EASED if name in self._short else 1):
                unit = "" if name == "load" else " %"
                yield name, f"{_WORDS[name]} {value:.0f}{unit} (--max-pressure {name}={most:g})"

    def _least(self, name: str, least: int) -> float:
        return least / _EASED if name in self._short else least


_WORDS = {
    "memory": "stalled for memory",
    "io": "stalled for the disk",
    "cpu": "short of CPUs",
    "load": "load of a core",
}
