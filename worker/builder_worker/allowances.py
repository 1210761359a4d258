"""What a job may use: what the operator allows, what is allowed if nobody says, and what the job asks for itself.

Limits only ever get tighter on this way. Some are watched by the worker and hold everywhere; those of
``OF_THE_SANDBOX`` hold where the sandbox can enforce them on this machine.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import frozen

from builder.quantities import parse_count, parse_cpus, parse_duration, parse_size
from builder_worker.sandbox import Limits, SandboxError
from builder_worker.sandbox.linux import hierarchies

PARSERS: Mapping[str, Callable[[str], float]] = {
    "timeout": parse_duration,
    "max_silent": parse_duration,
    "memory": parse_size,
    "pids": parse_count,
    "cpus": parse_cpus,
    "work_size": parse_size,
    "shm_size": parse_size,
    "max_console": parse_size,
    "max_artifact_bytes": parse_size,
    "max_artifacts": parse_count,
}
"""How each field of Limits is written, on the command line and in a job's script."""

OF_THE_SANDBOX = ("memory", "pids", "cpus", "work_size", "shm_size")

DEFAULT_PIDS = 4096
"""Processes and threads: more than any build has, and an eighth of what a small machine can run."""

DEFAULT_SHM_SIZE = 64 * 1024**2
"""Bytes of /dev/shm, Docker's default; they count as memory of the job."""

DEFAULT_MAX_CONSOLE = 2 * 1024**3
"""Bytes: what a job that only prints would write in a minute goes to the server's disk."""

DEFAULT_MAX_ARTIFACT_BYTES = 64 * 1024**3
"""Bytes: more than any build leaves. A file of holes costs a job nothing, and the server every byte."""

MEMORY_FOR_JOBS = 0.9
"""Part of the machine's memory that all slots together may use, if nobody says: the rest is the system's."""

MEMORY_FOR_WORKER = 100 * 1024**2
"""Bytes of the machine's memory that jobs leave to the worker, or half of it where there is so little."""


@frozen(kw_only=True)
class Machine:
    """What there is to divide: bytes of memory, and CPUs. What is around the worker may make that less than there is."""

    memory: int
    cpus: float

    @classmethod
    def here(cls) -> "Machine":
        """Return what this worker may use."""
        around = hierarchies.ceiling()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(memory=_smaller(memory, around.memory), cpus=_smaller(cpus, around.cpus))

    @property
    def memory_for_jobs(self) -> int:
        """Bytes for all slots together, if nobody says."""
        return max(self.memory // 2, min(int(self.memory * MEMORY_FOR_JOBS), self.memory - MEMORY_FOR_WORKER))


CPUS_OF_A_SLOT = 4
MEMORY_OF_A_SLOT = 4 * 1024**3
"""What ``--slots auto`` counts for a job: a build that runs some compilers at once, unless --cpus and --memory say more."""

MAX_AUTO_SLOTS = 64
"""Slots that nobody has asked for: each has a connection, and a place that is made ahead."""


def auto_slots(machine: Machine, *, memory: int | None = None, cpus: float | None = None) -> int:
    """Return how many jobs a machine bears at once; ``memory`` and ``cpus`` are those of a job, if they are told."""
    by_memory = machine.memory_for_jobs // (memory or MEMORY_OF_A_SLOT)
    by_cpus = int(machine.cpus / (cpus or CPUS_OF_A_SLOT))
    return max(1, min(by_memory, by_cpus, MAX_AUTO_SLOTS))


def option(name: str) -> str:
    """Return how a field of Limits is called where people write it."""
    return name.replace("_", "-")


def tighten(limits: Limits, more: Limits) -> Limits:
    """Return the smaller of each pair of limits."""
    return Limits(**{name: _smaller(getattr(limits, name), getattr(more, name)) for name in PARSERS})


def _smaller(one: Any, other: Any) -> Any:
    return min((value for value in (one, other) if value is not None), default=None)


def without(limits: Limits, names: frozenset[str]) -> Limits:
    """Return limits with some of them lifted."""
    return attrs.evolve(limits, **dict.fromkeys(names))


def not_real(limits: Limits, real: frozenset[str]) -> frozenset[str]:
    """Return which of the limits that were set are for the sandbox to enforce, and can't be."""
    return frozenset(name for name in OF_THE_SANDBOX if getattr(limits, name) is not None) - real


def allot(asked: Limits, *, slots: int, real: frozenset[str], machine: Machine) -> Limits:
    """Return the limits of each job, with defaults where nothing was asked and the sandbox can enforce them.

    No job gets more memory or CPUs than the worker itself, whatever was asked: there is no swap, and the kernel refuses to
    give more. Raises SandboxError if what was asked
    can't be enforced: a limit that does not hold is worse than none.
    """
    if missing := not_real(asked, real):
        names = ", ".join(f"--{option(name)}" for name in sorted(missing))
        raise SandboxError(f"the sandbox can't enforce {names} here; `builder-worker check` says why")
    defaults = Limits(
        memory=machine.memory_for_jobs // slots,
        pids=DEFAULT_PIDS,
        cpus=machine.cpus / slots if slots > 1 else None,
        shm_size=DEFAULT_SHM_SIZE,
        max_console=DEFAULT_MAX_CONSOLE,
        max_artifact_bytes=_smaller(asked.work_size, DEFAULT_MAX_ARTIFACT_BYTES),
    )
    defaults = without(defaults, not_real(defaults, real))
    limits = Limits(**{name: _first(getattr(asked, name), getattr(defaults, name)) for name in PARSERS})
    there_is = Limits(memory=limits.memory and machine.memory, cpus=limits.cpus and machine.cpus)
    return tighten(limits, there_is)


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one
