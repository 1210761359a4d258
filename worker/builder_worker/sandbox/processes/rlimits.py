"""The limits of every process of a job, in every back end, whatever the worker was started with."""

import resource

_HARD_CORE = resource.getrlimit(resource.RLIMIT_CORE)[1]

CORE = 0 if _HARD_CORE == 0 else 1
"""Bytes of a job's core file. 1 is what also stops handlers of core dumps, which would run outside of the sandbox; but
where the worker was started with 0 it may not ask for more."""

_HARD_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

DESCRIPTORS = (min(1024, _HARD_DESCRIPTORS), min(524_288, _HARD_DESCRIPTORS))
"""Open files of one process of a job, soft and hard: what systemd gives to services, whatever the worker was given."""

_HARD_PROCESSES = resource.getrlimit(resource.RLIMIT_NPROC)[1]

PROCESSES = 2048 if _HARD_PROCESSES == resource.RLIM_INFINITY else min(2048, _HARD_PROCESSES)
"""Processes of a job's user, where no control group counts those of the job. All that this user runs counts, other
jobs too if they are the same user's: no limit of a job, but fork bombs leave the machine alive."""


def of_job(*, processes: int | None = None, file_size: int | None = None) -> dict[int, tuple[int, int]]:
    """Return soft and hard limits by the number of the resource; ``file_size`` in bytes."""
    limits = {resource.RLIMIT_CORE: (CORE, CORE), resource.RLIMIT_NOFILE: DESCRIPTORS}
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = (processes, processes)
    if file_size is not None:
        limits[resource.RLIMIT_FSIZE] = (file_size, file_size)
    return limits
