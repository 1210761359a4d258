"""Where a worker's session and the owner of its attempt meet: what the one hands in, and what the other tells it."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Self
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder.extension.working import Fact
from builder.runtime.logs import fields
from builder_server.events import Detached, Event
from builder_server.store import Build


@frozen(kw_only=True)
class Given:
    """A job, and from when on its time counts. ``secret`` is for the worker alone, if that may come back."""

    build: Build
    began: float
    secret: bytes | None


@frozen(kw_only=True)
class Resumed:
    """What a console has already: so many lines, the last one at that time in nanoseconds."""

    lines: int
    last: int


_Channel = tuple[trio.MemorySendChannel[Event | None], trio.MemoryReceiveChannel[Event | None]]


@define(eq=False)
class Attachment:
    """Where a worker's session and the owner of its attempt meet.

    The session works in ``scope``, which the owner ends. Then either ``failure`` is what the session is to end with, or
    ``acknowledged`` says that the worker's result is durable, or ``dismissed`` why the attempt is over without the worker;
    or there is nothing to be said.
    """

    uuid: UUID
    _tell: Callable[["Attachment", Event], None]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    heard: float = field(factory=trio.current_time)
    """The time of the last sign of life, by trio's clock."""
    changed: dict[str, str] = field(factory=dict)
    """What has changed since of what the worker told of itself."""
    failure: Exception | None = None
    acknowledged: bool = False
    dismissed: str | None = None
    is_detached: bool = False
    is_sent_away: bool = False
    """The worker waits no longer here, since other servers have jobs for it."""
    _given: Given | None = None
    _resumed: Resumed | None = None
    holder: Mapping[str, object] = field(factory=fields)
    """What the log says of the session, to be said of what the attempt does for it."""
    _is_answered: bool = False
    _waiting: trio.CancelScope | None = None
    _may_leave: bool = False
    _ended: trio.Event | None = None
    _channel: _Channel | None = None  # made when it is needed: thousands of workers may wait for a job

    @classmethod
    def to(cls, uuid: UUID, tell: Callable[["Attachment", Event], None]) -> Self:
        """Return a new one to that attempt; ``tell`` takes what is said out of turn."""
        return cls(uuid, tell)

    def _opened(self) -> _Channel:
        if self._channel is None:
            self._channel = trio.open_memory_channel[Event | None](0)
        return self._channel

    # the session's side

    async def wait_answered(
        self, until_closed: Callable[[], Awaitable[NoReturn]], *, patience: float = math.inf, may_leave: bool = False
    ) -> bool:
        """Wait until there is a job, which may take days, or until it is known how far the console is.

        ``until_closed`` waits meanwhile, in this task, and raises when the peer closes or sends anything. Returns False if there
        is no answer after ``patience`` seconds, or before a worker that ``may_leave`` was sent away.
        """
        self._may_leave = may_leave
        with trio.move_on_after(patience) as self._waiting:
            if not self._is_answered:
                await until_closed()
        return self._is_answered

    def _answer(self) -> None:
        self._is_answered = True
        if self._waiting is not None:
            self._waiting.cancel()

    @property
    def given(self) -> Given:
        """The attempt that was given."""
        assert self._given, "wait_answered comes first"
        return self._given

    @property
    def build(self) -> Build:
        """The build that it is."""
        return self.given.build

    @property
    def resumed(self) -> Resumed:
        """How far the console was."""
        assert self._resumed, "wait_answered comes first"
        return self._resumed

    def elapsed(self) -> int:
        """Return the nanoseconds since the attempt began."""
        return int((trio.current_time() - self.given.began) * 1e9)

    async def hand_in(self, event: Event) -> None:
        """Hand in what the worker sent. It waits until what was handed in before is dealt with, and on the disk."""
        self.note_life()
        await self._opened()[0].send(event)

    def note_life(self, facts: Sequence[Fact] = ()) -> None:
        """Note that something came from the worker, and what has changed of what it told of itself."""
        self.heard = trio.current_time()
        if facts:
            self.changed = {fact.name: fact.value for fact in facts}

    async def settle(self) -> None:
        """Wait until all that was handed in is dealt with, and on the disk."""
        await self._opened()[0].send(None)

    def detach(self, event: Detached) -> None:
        """Say that the worker has gone."""
        self.is_detached = True
        self._tell(self, event)

    @property
    def is_building(self) -> bool:
        """Whether a worker is connected here that has the job."""
        return self._is_answered and not self.is_detached and not self.scope.cancel_called

    @property
    def is_released(self) -> bool:
        """Whether the owner has ended the session, and the attempt goes on without it."""
        return self.scope.cancel_called and not self.acknowledged and self.dismissed is None

    async def wait_ended(self) -> None:
        """Wait until the attempt has ended, or its end has to wait for the disk."""
        if not self.scope.cancel_called:
            self._ended = self._ended or trio.Event()
            await self._ended.wait()

    # the owner's side

    def send_away(self) -> None:
        """Have the worker go to another server, if it waits for a job and may go."""
        if self._may_leave and self._waiting is not None and not self._is_answered:
            self.is_sent_away = True
            self._waiting.cancel()

    @property
    def receive(self) -> trio.MemoryReceiveChannel[Event | None]:
        """What the session hands in."""
        return self._opened()[1]

    def give(self, given: Given) -> None:
        """Give the job to the session."""
        self._given = given
        self._answer()

    def resume(self, resumed: Resumed) -> None:
        """Have the session go on with the console."""
        self._resumed = resumed
        self._answer()

    def end(
        self, *, acknowledged: bool = False, dismissed: str | None = None, failure: Exception | None = None
    ) -> None:
        """End the session, if it has not ended; only the first end counts."""
        if not self.scope.cancel_called:
            self.acknowledged = acknowledged
            self.dismissed = dismissed
            self.failure = failure
            self.scope.cancel()
            if self._ended is not None:
                self._ended.set()
