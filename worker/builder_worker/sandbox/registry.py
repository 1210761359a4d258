"""The back ends by name, what works of them here, and which one is taken if nobody says."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import trio
from attrs import frozen

from builder_worker.sandbox import Backend, Check, Limits, Sandbox, SandboxError, probe
from builder_worker.sandbox.options import OptionError, Options
from builder_worker.sandbox.record import JobRecord

AUTO = "auto"

_COST_RUNS = 5
"""Trivial jobs that are run to measure what a sandbox costs."""

_COST_TIMEOUT = 60.0
"""Seconds for one of them, on a machine that is very busy."""


# Each is loaded when it is wanted: a worker wants one, and its start waits for that.


def _bubblewrap(options: Options) -> Backend:
    from builder_worker.sandbox.backends.bubblewrap import Bubblewrap

    return Bubblewrap(options=options)


def _overlay(options: Options) -> Backend:
    from builder_worker.sandbox.backends.overlay import Overlay

    return Overlay(options=options)


def _podman(options: Options) -> Backend:
    from builder_worker.sandbox.backends.podman import Podman

    return Podman(options=options)


def _jail(options: Options) -> Backend:
    from builder_worker.sandbox.backends.jail import Jail

    return Jail(options=options)


def _none(options: Options) -> Backend:
    from builder_worker.sandbox.backends.none import NoSandbox

    return NoSandbox(options=options)


_MAKERS: dict[str, Callable[[Options], Backend]] = {
    "bubblewrap": _bubblewrap,
    "overlay": _overlay,
    "podman": _podman,
    "jail": _jail,
    "none": _none,
}

_BY_ISOLATION = ("bubblewrap", "podman")
"""What ``auto`` tries, best first. Not ``overlay``, which works only where bubblewrap does. Not ``jail``, as long as nobody has run it: who wants it names it.
Never ``none``: less isolation is the operator's word, not a fallback."""

WITH_IMAGE = frozenset({"podman", "jail"})
"""The back ends that take an image, which is a name, where the others take a root tree, which is a directory."""

NAMES = tuple(_MAKERS)

_GONE = {"nspawn": "overlay"}
"""Back ends that there were once, and what does the same."""


@frozen(kw_only=True)
class Report:
    """What ``builder-worker check`` tells of one back end; ``milliseconds`` is what a trivial job takes, at the median,
    from an empty machine to an empty machine.
    """

    name: str
    check: Check
    milliseconds: float | None = None


def make(name: str, options: Options) -> Backend:
    """Return a back end. Raises OptionError if there is none of this name."""
    if name in _GONE:
        raise OptionError(f"the sandbox {name} is gone: use {_GONE[name]}, which gives jobs the same at half the cost")
    if name not in _MAKERS:
        raise OptionError(f"no sandbox is called {name}: there are {', '.join(NAMES)} and {AUTO}")
    return _MAKERS[name](options)


async def adopt(backend: Backend, place: Path) -> Sandbox:
    """Return the sandbox of a job that an earlier worker has left, by the back end that made it; ``backend`` is this worker's.

    Raises SandboxError and JobTaken, as ``Backend.adopt``.
    """
    try:
        name = JobRecord.read(place).backend
        maker = backend if name == backend.name else make(name, backend.options)
    except (SandboxError, OptionError):
        maker = backend  # which ends what can't be adopted
    return await maker.adopt(place)


def choose(options: Options) -> tuple[Backend, Check]:
    """Return the best back end that works here, and its check. Raises SandboxError with every reason if none does."""
    reasons = []
    for name in _BY_ISOLATION:
        backend = make(name, options)
        check = backend.check()
        if check.works:
            return backend, check
        reasons.append(f"{name}: {check.reason} ({check.remedy})")
    raise SandboxError(f"no sandbox works here; {'; '.join(reasons)}; --sandbox none runs jobs without one")


async def check_all(options: Options, names: Iterable[str] = NAMES) -> tuple[Report, ...]:
    """Return what works here, and what it costs."""
    return tuple([await _report(name, options) for name in names])


async def _report(name: str, options: Options) -> Report:
    try:
        backend = make(name, options)
        check = backend.check()
        if not check.works:
            return Report(name=name, check=check)
        times = []
        for _ in range(_COST_RUNS):
            started = trio.current_time()
            problem = await probe.run(backend, limits=Limits(), timeout=_COST_TIMEOUT)
            if problem is not None:
                return Report(name=name, check=Check(works=False, reason=problem[0], remedy=problem[1]))
            times.append(trio.current_time() - started)
    except SandboxError as error:
        return Report(name=name, check=Check(works=False, reason=str(error)))
    return Report(name=name, check=check, milliseconds=statistics.median(times) * 1000)


def best(reports: Iterable[Report]) -> str | None:
    """Return the name of the best that works, of what was checked."""
    working = {report.name for report in reports if report.check.works}
    return next((name for name in _BY_ISOLATION if name in working), None)
