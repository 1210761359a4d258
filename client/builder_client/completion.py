"""Names of jobs, platforms and builds for the shell's Tab key, asked from the server.

Nothing is said when there is no answer within a second: a person who types wants no error. Names that a shell
could read as anything but a word are never offered, since what is offered ends up on the command line.
"""

import re
from collections.abc import Callable, Iterable

from builder.errors import BuilderError
from builder.messages import InfoReply

from .remote import Remote

TIMEOUT = 1.0
"""Seconds that a Tab key may take."""

_SAFE = re.compile(r"[\w+@%,.][\w+@%,.:-]*", re.ASCII)


def jobs(info: InfoReply) -> Iterable[str]:
    """Return the names of all jobs."""
    return (item.job.name for item in info.schedule)


def platforms(info: InfoReply) -> Iterable[str]:
    """Return the names of all platforms in use."""
    return (queue.platform for queue in info.queues)


def dropped_platforms(info: InfoReply) -> Iterable[str]:
    """Return the names of the dropped platforms."""
    return info.dropped_platforms


def running(info: InfoReply) -> Iterable[str]:
    """Return the uuids of the running builds."""
    return (str(build.uuid) for build in info.running)


def quick(address: tuple[str, int]) -> Remote:
    """Return a server that is asked by the way: whoever waits did not ask for it."""
    host, port = address
    return Remote(host=host, port=port, connect_timeout=TIMEOUT, reply_timeout=TIMEOUT)


def complete(address: tuple[str, int], names: Callable[[InfoReply], Iterable[str]], begin: str) -> list[str]:
    """Return the names that begin so, sorted; none where the server does not answer."""
    try:
        info = quick(address).info()
    except BuilderError:
        return []
    return safe(names(info), begin)


def safe(names: Iterable[str], begin: str) -> list[str]:
    """Return those of the names that begin so and that no shell can misread, sorted."""
    return sorted({name for name in names if name.startswith(begin) and _SAFE.fullmatch(name)})
