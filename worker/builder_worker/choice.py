"""Which sandbox jobs run in: the one that was named, or the best that works here; and the proof that it does.

What happens if nobody names one:

    with --loop, --slots and run           auto
    for one job, outside of a container    auto
    for one job, inside of one             none: the original's way, the container is made for the job and thrown away

``auto`` takes the best sandbox that works. If there is none, it takes ``none`` inside of a container and refuses to
work outside: no job ever runs with less around it than its operator was told.
"""

import datetime as dt
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from builder_worker.build import Setup
from builder_worker.sandbox import Backend, Check, SandboxError, probe, registry, roots
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.backends.podman import Podman
from builder_worker.sandbox.options import OptionError, Options

PROOF_TIMEOUT = 60.0
"""Seconds for a job that does nothing, on a machine that is very busy."""

DEFAULT_DATE = 1_577_836_800
"""Seconds since 1970, the beginning of 2020: any date would do, if it is the same everywhere and zip files can hold it."""

log = logging.getLogger("builder_worker")


@frozen(kw_only=True)
class Choice:
    """A back end that works, the limits that it enforces, and why it was taken if nobody named it."""

    backend: Backend
    real: frozenset[str]
    reason: str

    @property
    def is_sandbox(self) -> bool:
        """Whether there is anything around the jobs."""
        return not isinstance(self.backend, NoSandbox)


def choose(name: str | None, options: Options, *, one_job: bool, container: str | None) -> Choice:
    """Return the back end that was named, if one was, or the best.

    ``one_job`` tells whether the worker is for one job only, ``container`` what it is inside of. Raises SandboxError,
    or OptionError for an unknown name.
    """
    if options.image:
        name = name if name not in (None, registry.AUTO) else Podman.name
    if name is None and one_job and container:
        reason = f"sandbox: none, since this worker is for one job and inside of {container}"
        return _checked(registry.make(NoSandbox.name, options), reason, options)
    if name not in (None, registry.AUTO):
        return _checked(registry.make(name, options), "", options)
    try:
        backend, check = registry.choose(options)
    except SandboxError as error:
        if container is None:
            raise SandboxError(f"{error}; `builder-worker check` tells more") from error
        log.warning("%s", error)
        return _checked(
            registry.make(NoSandbox.name, options), f"sandbox: none, but this worker is inside of {container}", options
        )
    return _accepted(backend, check, f"sandbox: {backend.name}, the best that works here", options)


def _checked(backend: Backend, reason: str, options: Options) -> Choice:
    check = backend.check()
    if not check.works:
        raise SandboxError(f"the sandbox {backend.name} does not work here: {check.reason}; {check.remedy}")
    return _accepted(backend, check, reason, options)


def _accepted(backend: Backend, check: Check, reason: str, options: Options) -> Choice:
    choice = Choice(backend=backend, real=check.limits, reason=reason)
    if options.image and choice.is_sandbox and backend.name not in registry.WITH_IMAGE:
        raise OptionError("--image is for --sandbox podman and --sandbox jail; the others take a --root")
    shows = options.root or options.image or options.binds or options.caches
    if not choice.is_sandbox and shows:
        raise SandboxError(
            "without a sandbox there is no --root, --image, --bind or --cache: jobs see what the worker sees"
        )
    for note in check.notes if choice.is_sandbox else ():
        log.info("%s", note)
    return choice


def warning(choice: Choice, *, container: str | None) -> str | None:
    """Return what an operator must know who runs jobs without a sandbox as root, where nothing else is around them."""
    if choice.is_sandbox or container or os.geteuid() != 0:
        return None
    return "JOBS RUN AS ROOT OF THIS MACHINE, without a sandbox and outside of a container: they can do anything to it"


async def prove(setup: Setup, platform: str) -> None:
    """Run a job that does nothing in the sandbox that jobs will get, with their limits and all that is shared.

    What is wrong with a path or a limit is so found before any job is taken. Without a sandbox, its check was enough.
    Raises SandboxError.
    """
    if isinstance(setup.backend, NoSandbox):
        return
    try:
        problem = await probe.run(setup.backend, platform=platform, limits=setup.limits, timeout=PROOF_TIMEOUT)
    except SandboxError as error:
        problem = str(error), ""
    if problem is not None:
        reason = "; ".join(filter(None, problem))
        raise SandboxError(f"a job that does nothing fails in the sandbox: {reason}{_closed(setup.shown)}")


def _closed(paths: Iterable[Path]) -> str:
    """Return a remark about directories that jobs can't come through, as other users than the worker when it is root."""
    above = {parent for path in paths for parent in path.resolve().parents}
    closed = sorted(path for path in above if path.is_dir() and not path.stat().st_mode & stat.S_IXOTH)
    if os.geteuid() != 0 or not closed:
        return ""
    return f"; jobs are other users, who can't come through {closed[0]}: chmod o+x, or take another place"


def default_date(options: Options) -> int:
    """Return SOURCE_DATE_EPOCH for jobs that do not tell their own: the date of the root tree, or a fixed one."""
    label = roots.read(options.root) if options.root else None
    if label is None or label.snapshot is None:
        return DEFAULT_DATE
    return int(dt.datetime.strptime(label.snapshot, "%Y%m%dT%H%M%S%z").timestamp())
