"""How much is asked of an engine, so that a worker has what a job needs."""

from collections.abc import Iterable

from builder.needs import Need

FOR_JOBS = 0.9
"""Part of the memory that builder-worker finds which it lets jobs use."""

FOR_WORKER = 100 * 1024**2
"""Bytes that it keeps at least."""

MIB = 1024**2


def amount(needs: Iterable[Need], name: str) -> int | None:
    """Return how much of something is needed, None where nobody says."""
    return next((need.least for need in needs if need.name == name), None)


def memory(needs: Iterable[Need]) -> int | None:
    """Return the MiB of memory for a worker whose job has as much as is needed; None where nobody says."""
    of_job = amount(needs, "memory")
    return None if of_job is None else -(-max(int(of_job / FOR_JOBS) + 1, of_job + FOR_WORKER) // MIB)
