"""What a worker tells of itself when it asks for a job: facts of its program, its machine, and what its operator chose."""

import os
from collections.abc import Mapping

from builder import __version__
from builder.extension.working import MAX_FACT_VALUE, Fact
from builder_worker.build import Setup


def lasting(setup: Setup, *, slots: int) -> tuple[Fact, ...]:
    """Return what stays for as long as the worker runs."""
    return _facts(
        {
            "version": __version__,
            "arch": os.uname().machine,
            "cores": _cores(),
            "sandbox": setup.backend.name,
            "slots": slots,
        }
    )


def passing() -> tuple[Fact, ...]:
    """Return what is true now: the load of the machine, as the mean of a minute."""
    return _facts({"load": f"{os.getloadavg()[0]:.2f}"})


def _facts(found: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(Fact(name=name, value=str(value)[:MAX_FACT_VALUE]) for name, value in found.items())


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
