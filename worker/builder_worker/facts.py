"""What a worker tells of itself when it asks for a job, and of how it runs one: facts of its program, its machine, and what its
operator chose.
"""

import os
from collections.abc import Mapping

from attrs import asdict

from builder import __version__
from builder.extension.working import MAX_FACT_VALUE, Fact
from builder.model import ScriptJob
from builder_worker.build import Setup, limits_of
from builder_worker.sandbox import roots


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


def of_job(job: ScriptJob, setup: Setup) -> dict[str, str]:
    """Return how a job is run: its sandbox, the limits that hold for it, and the root tree that it sees, if that has a label."""
    options = setup.backend.options
    label = roots.read(options.root) if options.root is not None else None
    found = {
        "version": __version__,
        "arch": os.uname().machine,
        "sandbox": setup.backend.name,
        "root": label and label.sha256,
        "snapshot": label and label.snapshot,
        "image": options.image,
        **{f"limit.{name}": _number(limit) for name, limit in asdict(limits_of(job, setup)).items()},
    }
    return {name: str(value)[:MAX_FACT_VALUE] for name, value in found.items() if value is not None}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.15g}"


def _facts(found: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(Fact(name=name, value=str(value)[:MAX_FACT_VALUE]) for name, value in found.items())


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
