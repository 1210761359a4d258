"""Workers as they are asked for, and what is known of them: of the engine, and of the server. Times are seconds since the epoch."""

import enum

from attrs import frozen

from builder.extension.crew import Doing
from builder.needs import Capabilities, Need


class EngineState(enum.Enum):
    """What the engine says of a worker."""

    QUEUED = "queued"
    """Its turn will come: the engine has no room for it yet."""

    HELD = "held"
    """It does not start, for a reason of which no end is known."""

    STARTED = "started"


@frozen(kw_only=True)
class Order:
    """A worker to be asked for: with what the engine has to be told of, for so many seconds."""

    needs: tuple[Need, ...] = ()
    time_limit: float


@frozen(kw_only=True)
class Ticket:
    """What was asked for: a worker of that name. ``id`` is what its engine calls it, where that is another one."""

    name: str
    platform: str
    needs: tuple[Need, ...] = ()
    asked_at: float
    time_limit: float
    id: str = ""


@frozen(kw_only=True)
class Asked:
    """A worker that was asked for, and is not gone. ``reason`` is the engine's own, why it has not started.

    ``doing`` is None until it has come to the server, and ``left_at`` is when it had gone from there: it is about to end.
    """

    name: str
    platform: str
    needs: tuple[Need, ...] = ()
    state: EngineState
    reason: str = ""
    asked_at: float
    started_at: float | None = None
    time_limit: float | None = None
    doing: Doing | None = None
    left_at: float | None = None
    able: Capabilities | None = None
    """What it has, as it tells of itself once it has come."""

    id: str = ""
    """What its engine calls it, where that is another name."""

    @property
    def is_coming(self) -> bool:
        """Whether it has not come to the server yet."""
        return self.doing is None and self.left_at is None


@frozen(kw_only=True)
class Standing:
    """A worker that nobody here has asked for. ``free_at``: None if nobody knows when its build ends."""

    able: Capabilities
    free_at: float | None


@frozen(kw_only=True)
class Waiting:
    """An entry of a queue that a worker could take, and since when it waits."""

    needs: tuple[Need, ...] = ()
    since: float
    time_limit: float | None = None
    expected: float | None = None
    """Seconds that its build is likely to take."""
