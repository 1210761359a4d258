"""Messages about what is drained, tags 182 to 187: builds that run go on, and no job is handed out there until it is resumed."""

import enum
from typing import ClassVar

from attrs import frozen

from builder.extension import Reply, Request
from builder.messages import message
from builder.model import Instant, check_name, printable
from builder.planning import MAX_LIMIT, check_count

MAX_REASON = 200
"""Characters of why something is drained: it stands in a column of a table."""

MAX_HALTS = 1000
"""Most that is drained at once."""


class Scope(enum.Enum):
    """What kind of thing is drained."""

    SERVER = "server"
    PLATFORM = "platform"
    """Its queue waits, in other words."""
    WORKER = "worker"


@frozen(kw_only=True, cache_hash=True)  # ten thousand workers are held against what is drained
class Target:
    """What is drained: a server, all of them if it has no name; a platform; or a worker.

    A worker is known by what its operator calls it. One of the classic protocol is by its host.
    """

    numbered: ClassVar[bool] = True
    scope: Scope
    name: str = ""

    def __str__(self) -> str:
        return f"the {self.scope.value}" + (f" {printable(self.name)}" if self.name else "")

    def check(self) -> None:
        """Raise InvalidName for a name that nothing has."""
        if self.scope is not Scope.SERVER or self.name:
            check_name(self.name, what=f"name of a {self.scope.value}")


SERVER = Target(scope=Scope.SERVER)
"""All servers."""


@frozen(kw_only=True)
class HaltState:
    """Something that is drained: since when, who wanted it, and why. ``until`` is when that ends by itself."""

    numbered: ClassVar[bool] = True
    target: Target
    since: Instant
    by: str
    reason: str
    until: Instant | None = None


@message
@frozen(kw_only=True)
class Halt(Request):
    """Hand out no job there; with ``duration``, for so many milliseconds. What is drained already gets what is given."""

    tag: ClassVar[int] = 182
    changes: ClassVar[bool] = True
    target: Target
    reason: str | None = None
    duration: int | None = None

    def check(self) -> None:
        """Raise InvalidName and InvalidOptions for what can't be."""
        self.target.check()
        if self.reason is not None:
            check_count(len(self.reason), 0, MAX_REASON, "the characters of a reason")
        if self.duration is not None:
            check_count(self.duration, 1, MAX_LIMIT, "the milliseconds of a duration")


@message
@frozen(kw_only=True)
class Halted(Reply):
    """It is drained, durably. So many builds still ``run`` there. ``is_new``: it was not drained before.

    ``workers`` are those that it concerns now: none may have that name, or be connected.
    """

    tag: ClassVar[int] = 183
    halt: HaltState
    run: int
    is_new: bool
    workers: int


@message
@frozen(kw_only=True)
class LiftHalt(Request):
    """Hand out jobs there again."""

    tag: ClassVar[int] = 184
    changes: ClassVar[bool] = True
    target: Target


@message
@frozen(kw_only=True)
class AwaitIdle(Request):
    """Ask to be answered when no build runs any more where it is drained."""

    tag: ClassVar[int] = 185
    target: Target


@message
@frozen(kw_only=True)
class StillRunning(Reply):
    """So many builds still run there. It is told whenever that has changed."""

    tag: ClassVar[int] = 186
    count: int
