"""Names of jobs, platforms, builds and time zones for the shell's Tab key, asked from the server.

Nothing is said when there is no answer within a second: a person who types wants no error. Names that a shell
could read as anything but a word are never offered, since what is offered ends up on the command line.
"""

import re
from collections.abc import Callable, Iterable

from builder.endpoint import Servers
from builder.errors import BuilderError
from builder.extension import Request
from builder.extension.applying import JobsListed, ListJobs
from builder.extension.builds import HistoryShown, ShowHistory
from builder.extension.crew import MAX_WORKERS, ListWorkers, WorkersListed
from builder.extension.halting import Scope
from builder.extension.watching import RunningState
from builder.messages import Message
from builder.model import RunningBuild

from .errors import TooOld
from .looking import look
from .remote import Remote
from .servers import listed

TIMEOUT = 1.0
"""Seconds that a Tab key may take."""

BUILDS, MAX_PAGES = 100, 10
"""Builds, and pages of jobs, that are asked for: nobody reads more names than that."""

Source = Callable[[Remote, str], Iterable[str]]
"""What finds the names that begin so, and maybe others."""

_SAFE = re.compile(r"[\w+@%,.][\w+@%,.:/-]*", re.ASCII)


def jobs(remote: Remote, begin: str) -> Iterable[str]:
    """Return the names of jobs, those behind ``begin`` in their order."""
    try:
        with remote.requests(what="lists of jobs") as ask:
            yield from _listed(ask, begin)
    except TooOld:
        yield from (item.job.name for item in remote.info().schedule)


def _listed(ask: Callable[[Request], list[Message]], begin: str) -> Iterable[str]:
    last = begin or None
    for _ in range(MAX_PAGES):
        (page,) = ask(ListJobs(after=last))
        assert isinstance(page, JobsListed), "the order of messages sees to it"
        names = [listed.job.name for listed in page.jobs]
        yield from names
        if not names or not names[-1].startswith(begin):
            return
        last = names[-1]


def platforms(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of all platforms in use."""
    try:
        return [platform.name for platform in look(remote, entries=0).platforms]
    except TooOld:
        return [queue.platform for queue in remote.info().queues]


def workers(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of workers, those of the first platforms."""
    try:
        with remote.requests(what="list of workers") as ask:
            behind = None
            for _ in range(MAX_PAGES):
                (page,) = ask(ListWorkers(count=MAX_WORKERS, behind=behind))
                assert isinstance(page, WorkersListed), "the order of messages sees to it"
                yield from {entry.place.name for entry in page.workers}
                if not page.workers:
                    return
                behind = page.workers[-1].place
    except TooOld:
        return


def servers(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of the servers."""
    try:
        return [entry.name for entry in listed(remote).servers]
    except TooOld:
        return []


def drained_workers(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of the drained workers."""
    try:
        halts = look(remote, entries=0).halts
    except TooOld:
        return []
    return [halt.target.name for halt in halts if halt.target.scope is Scope.WORKER]


def dropped_platforms(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of the dropped platforms."""
    return remote.info().dropped_platforms


def running(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the uuids of the running builds."""
    return [str(build.uuid) for build in _running(remote)]


def running_jobs(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the uuids of the running builds, and the names of their jobs."""
    return [text for build in _running(remote) for text in (str(build.uuid), _name(build))]


def _running(remote: Remote) -> Iterable[RunningBuild | RunningState]:
    try:
        return look(remote, entries=0).running
    except TooOld:
        return remote.info().running


def _name(build: RunningBuild | RunningState) -> str:
    return build.job.name if isinstance(build, RunningBuild) else build.job


def time_zones(_remote: Remote, _begin: str) -> Iterable[str]:
    """Return the names of all time zones that this machine knows."""
    import zoneinfo

    return zoneinfo.available_timezones()


def builds(remote: Remote, _begin: str) -> Iterable[str]:
    """Return the uuids of the newest builds."""
    try:
        (page,) = remote.request(
            ShowHistory(count=BUILDS, name=None, platform=None, failed=False, since=None, behind=None), what="history"
        )
        assert isinstance(page, HistoryShown), "the order of messages sees to it"
        return [str(entry.uuid) for entry in page.entries if entry.uuid]
    except TooOld:
        return running(remote, _begin)


def quick(servers: Servers) -> Remote:
    """Return servers that are asked by the way: whoever waits did not ask for it."""
    timeout = TIMEOUT / len(servers.all)
    return Remote(servers=servers, connect_timeout=timeout, reply_timeout=timeout)


def complete(servers: Servers, names: Source, begin: str) -> list[str]:
    """Return the names that begin so, sorted; none where no server answers."""
    try:
        return safe(names(quick(servers), begin), begin)
    except BuilderError:
        return []


def safe(names: Iterable[str], begin: str) -> list[str]:
    """Return those of the names that begin so and that no shell can misread, sorted."""
    return sorted({name for name in names if name.startswith(begin) and _SAFE.fullmatch(name)})
