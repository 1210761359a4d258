"""What every process of a job may use of its kind, in every back end: one table, whatever the worker was started with."""

import os
import resource
from pathlib import Path

from attrs import frozen

from builder.sizes import format_size
from builder_worker.sandbox import SandboxError

_NONE = resource.RLIM_INFINITY
_MIB = 1024 * 1024

PROCESSES = 2048
"""Processes of a job's user, where no control group counts those of the job. All that this user runs counts, other
jobs too if they are the same user's: no limit of a job, but fork bombs leave the machine alive."""

LEAST_FILE = 16 * _MIB
"""Bytes of a file that a worker must be able to write: a script of the largest size, and what starts a job."""

_OWN_SCORE = Path("/proc/self/oom_score_adj")

OOM_SCORE = 500
"""So that the kernel, when the whole machine is out of memory, ends jobs before workers."""


@frozen
class _Limit:
    """A limit of the system: its name, the option of ulimit that shows it, what jobs have, soft and hard, and the smallest
    hard one that is not worth a word.
    """

    name: str
    option: str
    soft: int
    hard: int
    enough: int = _NONE


_TABLE = (
    _Limit("RLIMIT_CPU", "-t", _NONE, _NONE),
    _Limit("RLIMIT_FSIZE", "-f", _NONE, _NONE),
    _Limit("RLIMIT_DATA", "-d", _NONE, _NONE),
    _Limit("RLIMIT_STACK", "-s", 8 * _MIB, _NONE, 8 * _MIB),  # the kernel's own
    _Limit(
        "RLIMIT_CORE", "-c", 1, 1, 0
    ),  # in bytes: at 0 the kernel starts handlers of core dumps, outside of the sandbox
    _Limit("RLIMIT_RSS", "-m", _NONE, _NONE, 0),  # of no effect
    _Limit("RLIMIT_NPROC", "-u", _NONE, _NONE, 4096),
    _Limit("RLIMIT_NOFILE", "-n", 1024, 524_288, 4096),  # what systemd gives to services
    _Limit("RLIMIT_MEMLOCK", "-l", 8 * _MIB, 8 * _MIB, 64 * 1024),  # systemd's, too
    _Limit("RLIMIT_AS", "-v", _NONE, _NONE),
    _Limit("RLIMIT_MSGQUEUE", "-q", 819_200, 819_200, 0),  # the kernel's own
    _Limit("RLIMIT_NICE", "-e", 0, 0, 0),
    _Limit("RLIMIT_RTPRIO", "-r", 0, 0, 0),
)


def _smaller(one: int, other: int) -> int:
    return one if other == _NONE else other if one == _NONE else min(one, other)


def of_job(*, processes: int | None = None, file_size: int | None = None) -> dict[int, tuple[int, int]]:
    """Return soft and hard limits by the number of the resource, as far as this process may give them.

    ``processes`` and ``file_size``, in bytes, are smaller ones than those of the table.
    """
    limits = {}
    for row in _TABLE:
        number = getattr(resource, row.name, None)  # not each system has all
        if number is not None:
            hard = _smaller(row.hard, resource.getrlimit(number)[1])
            limits[number] = (_smaller(row.soft, hard), hard)
    for number, more in ((resource.RLIMIT_NPROC, processes), (resource.RLIMIT_FSIZE, file_size)):
        if more is not None:
            limits[number] = (_smaller(more, limits[number][1]),) * 2
    return limits


def pair(number: int) -> str:
    """Return the limits of a resource for jobs as podman takes them."""
    soft, hard = of_job()[number]
    return f"{soft}:{hard}"


def oom_score() -> int:
    """Return the score of jobs when memory is short: not less than this process's own, which it may not give."""
    try:
        return max(OOM_SCORE, int(_OWN_SCORE.read_text()))
    except OSError:  # not Linux
        return OOM_SCORE


def settle() -> tuple[str, ...]:
    """Let jobs have what the table says, and return a line for what they will have of this worker's starter instead.

    Raises SandboxError where no job could be started.
    """
    said = [line for row in _TABLE if (line := _raise(row)) is not None]
    _allow_files()
    if os.geteuid() and (nice := os.getpriority(os.PRIO_PROCESS, 0)) > 0:
        said.append(f"jobs have the niceness {nice}, as this worker has, which may not give less")
    if oom_score() > OOM_SCORE:
        try:
            _OWN_SCORE.write_text(str(OOM_SCORE))
        except OSError:
            said.append(
                f"jobs have the score {oom_score()} when memory is short, as this worker has, which may not give less"
            )
    return tuple(said)


def _raise(row: _Limit) -> str | None:
    """Raise this process's own hard limit, if it may; return what is to be said of it if it may not."""
    number = getattr(resource, row.name, None)
    if number is None:
        return None
    soft, hard = resource.getrlimit(number)
    if _smaller(hard, row.hard) != row.hard:
        try:
            resource.setrlimit(number, (soft, row.hard))
        except (ValueError, OSError):
            if _smaller(hard, row.enough) != row.enough:
                return (
                    f"jobs have the hard limit {hard} of `ulimit {row.option}`, as this worker has, and no larger one"
                )
    return None


def _allow_files() -> None:
    """Let this process write files, such as consoles, as large as it may. Raises SandboxError where they are too small."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if _smaller(hard, LEAST_FILE) != LEAST_FILE:
        raise SandboxError(
            f"this worker may write no file of more than {hard} bytes (`ulimit -f`), and a job needs one of "
            f"{format_size(LEAST_FILE)}: start it with a larger limit"
        )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
