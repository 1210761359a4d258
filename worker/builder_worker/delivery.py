"""The delivery of an attempt to a server of our own protocol: it outlives its connections.

After a break the worker comes back with what shows that the attempt is its own, and goes on with the line that the server
wants next. While the job runs it tries so for a limited time, with a result for as long as it takes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from builder.errors import BuilderError, ProtocolError, RemoteProtocolError
from builder.extension.working import (
    ALIVE_INTERVAL,
    SILENCE,
    Alive,
    BuildFacts,
    Continue,
    Fact,
    GiveUp,
    Gone,
    ResultStored,
    Return,
)
from builder.messages import Failure, Message
from builder.model import printable
from builder.reasons import reason_of
from builder_worker import facts
from builder_worker.assignment import Assignment
from builder_worker.backoff import LONGEST_PAUSE, Backoff
from builder_worker.handover import Handover
from builder_worker.sending import Sender
from builder_worker.trees import TreeChanged
from builder_worker.uplink import CONNECT_TIMEOUT, Lost, NotAllowed, Uplink

EAGER_PAUSE = 2.0
"""Seconds between attempts to come back at most, at first: an outage costs a build no more than that."""

EAGER_TIMEOUT = 10.0
"""Seconds for such an attempt to connect: where a network loses all, the kernel tries less and less often, and a new attempt
begins anew. A name is looked up within them as well, also where the first server for names does not answer."""

FIRST_BREAK = 0.1
"""Seconds from the begin of a connection that breaks to the next one, at first: a server that has no room for a result breaks
every one."""

STEADY = 15.0
"""Seconds after which a connection was one that worked."""

GIVE_UP_TIMEOUT = 3.0
"""Seconds in which a worker that ends tells so; otherwise the server finds out when its patience ends."""

log = logging.getLogger("builder_worker")


class Revoked(BuilderError):
    """The server has ended the attempt, or given the job to another worker."""

    exit_code = 5


class Abandoned(Lost):
    """The server was away for too long, and the job was killed, which the server does not know."""

    def __init__(self, message: str, handover: Handover, reason: str) -> None:
        super().__init__(message)
        self.handover = handover
        self.reason = reason


class Silent(BuilderError):
    """The server shows no sign of life."""


@contextmanager
def _hearing() -> Iterator[None]:
    """Bound a block in which something comes from a server that lives. Raises Silent."""
    try:
        with trio.fail_after(SILENCE):
            yield
    except trio.TooSlowError as error:
        raise Silent(f"silent for {SILENCE:g} s") from error


@define(eq=False)
class Delivery:
    """Delivers an attempt that was given on the connection of a link."""

    _uplink: Uplink
    _assignment: Assignment
    _handover: Handover
    _reconnect_for: float
    """Seconds for which the job goes on without a server."""

    _is_over: bool = field(init=False, default=False)
    """Whether nobody has to be told of the attempt any more."""

    _breaks: Backoff = field(init=False, factory=lambda: Backoff(shortest=FIRST_BREAK))
    _not_before: float = field(init=False, default=0.0)
    """When the next connection may begin."""

    async def run(self) -> None:
        """Return when the result is stored. Raises Revoked, and Abandoned when the server is away for too long.

        When it is cancelled, the server is told that nobody has the job any more.
        """
        try:
            heard: Message | None = await self._begin()
            while isinstance(heard, Continue):
                heard = await self._converse(heard.lines) or await self._come_back()
            self._is_over = True
        finally:
            if not self._is_over and not self._assignment.is_left:
                with trio.move_on_after(GIVE_UP_TIMEOUT, shield=True):
                    await self._give_up()
        if not self._assignment.sent.is_set():  # what was sent last may be a part of something
            await self._uplink.close()
        if isinstance(heard, Gone):
            raise Revoked(f"the server has ended the build: {printable(heard.reason)}")

    async def _begin(self) -> Message:
        return await self._come_back() if self._assignment.was_adopted else Continue(lines=0)

    async def _converse(self, line: int) -> Message | None:
        """Send what there is from a line on, up to the server's last word; return None if the connection breaks before."""
        begun = trio.current_time()
        sender = Sender(self._uplink.connection, self._assignment)
        heard = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, sender, line)
                nursery.start_soon(self._show_life, sender)
                heard = await self._hear()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, ProtocolError, Silent) as errors:
            log.warning("lost %s: %s", self._uplink, reason_of(errors))
        except* TreeChanged as errors:
            self._assignment.spoil(errors.exceptions[0])
        if trio.current_time() - begun > STEADY:
            self._breaks.reset()
        self._not_before = begun + self._breaks.next_pause()
        return heard

    async def _send(self, sender: Sender, line: int) -> None:
        if self._handover.facts:
            told = tuple(Fact(name=name, value=value) for name, value in self._handover.facts.items())
            await sender.say(BuildFacts(uuid=self._assignment.uuid, facts=told))
        try:
            await sender.send(line)
        except IndexError as error:
            raise RemoteProtocolError(f"the server wants line {line}, and there are fewer") from error

    async def _show_life(self, sender: Sender) -> None:
        while True:
            await trio.sleep(ALIVE_INTERVAL)
            await sender.say(Alive(facts=facts.passing()))

    async def _hear(self) -> ResultStored | Gone:
        """Wait for the server's last word."""
        while True:
            with _hearing():
                message = await self._uplink.connection.receive()
            if isinstance(message, ResultStored | Gone):
                return message

    async def _come_back(self) -> Message:
        """Return what the server answers to a return, as soon as it does."""
        begun = trio.current_time()
        pauses = Backoff(longest=EAGER_PAUSE)
        said = ""
        await self._uplink.close()  # for the server to know, too
        await trio.sleep_until(self._not_before)
        while True:
            is_eager = trio.current_time() < begun + self._reconnect_for
            try:
                answer = await self._return(EAGER_TIMEOUT if is_eager else CONNECT_TIMEOUT)
            except (BuilderError, trio.BrokenResourceError) as error:
                reason = reason_of(error)
                await self._uplink.close()
            else:
                log.warning("back at %s after %.0f s", self._uplink, trio.current_time() - begun)
                return answer
            if not self._assignment.has_ended and not is_eager:
                self._is_over = True
                away = f"was away for {self._reconnect_for:g} s"
                raise Abandoned(
                    f"{self._uplink} {away} ({reason}); the job was killed", self._handover, f"the server {away}"
                )
            if said != reason:
                log.warning("%s; the job is kept", reason)
                said = reason
            pauses.longest = EAGER_PAUSE if is_eager else LONGEST_PAUSE
            await trio.sleep(pauses.next_pause())

    async def _return(self, timeout: float) -> Message:
        """Return what the server answers to a return on a new connection."""
        return await come_back(self._uplink, self._handover, timeout=timeout, has_ended=self._assignment.has_ended)

    async def _give_up(self) -> None:
        try:
            await give_up(self._uplink, self._handover, "the worker was stopped")
        except (BuilderError, trio.BrokenResourceError) as error:
            log.warning("%s was not told that the job has ended: %s", self._uplink, reason_of(error))


async def come_back(uplink: Uplink, handover: Handover, *, timeout: float, has_ended: bool) -> Message:
    """Return what the server answers to a return on a new connection."""
    channel = await uplink.connect(timeout)
    job = handover.job
    with _hearing():
        await channel.send(Return(uuid=job.uuid, secret=job.secret, elapsed=handover.elapsed, has_ended=has_ended))
    answer: object = Alive()
    while isinstance(answer, Alive):  # it looks at its console, or waits for its disk
        with _hearing():
            answer = await channel.receive()
    if isinstance(answer, Failure):
        raise NotAllowed(f"{uplink} refuses this worker: {printable(answer.message)}")
    assert isinstance(answer, Continue | ResultStored | Gone), "the table of messages allows no other"
    return answer


async def give_up(uplink: Uplink, handover: Handover, reason: str) -> None:
    """Say that the job is not here any more: on a new connection, since what was sent last may be a part of something.

    Raises BuilderError and trio.BrokenResourceError where the server was not told.
    """
    answer = await come_back(uplink, handover, timeout=GIVE_UP_TIMEOUT, has_ended=False)
    if isinstance(answer, Continue):
        with _hearing():
            await uplink.connection.send(GiveUp(uuid=handover.job.uuid, reason=reason))
            await uplink.connection.receive()
