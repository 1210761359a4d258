"""A connection of a worker that may come back: one job after the other, and builds to which it comes back.

Its session is one of several that an attempt may have. What it hands in goes to the owner of the attempt, and how it ends
is told by that too.
"""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn
from uuid import UUID

import trio
from attrs import define

from builder.errors import ConnectionEnded, InvalidOptions, ProtocolError, RemoteProtocolError
from builder.extension.working import (
    ALIVE_INTERVAL,
    SECRET_SIZE,
    SILENCE,
    Alive,
    AskJob,
    BuildFacts,
    Continue,
    Fact,
    GiveJob,
    GiveUp,
    Gone,
    NoJob,
    ResultStored,
    Return,
    check_facts,
)
from builder.framing import StreamedFrame
from builder.messages import Failure, Message, Output
from builder.model import printable
from builder.needs import PRESSURE
from builder.order import Side, State
from builder.outputs import Outputs, TimedLines
from builder.runtime.logs import about, note
from builder.runtime.nurseries import plain_nursery
from builder_server.aborts import FAULT, given_up
from builder_server.aside import Crowded
from builder_server.attachment import Attachment
from builder_server.attempts import Attempts
from builder_server.console import MAX_LINE
from builder_server.delivery import receive_result
from builder_server.errors import CommandRefused
from builder_server.events import Detached, FactsTold, Lines
from builder_server.logs import about_build
from builder_server.memory import SharingChannel
from builder_server.names import check_platform_name
from builder_server.owner import seconds
from builder_server.peers import CONNECTION_ERRORS, STEP_TIMEOUT
from builder_server.permission import NotPermitted, Peer
from builder_server.store import BuildHead, Holder, is_secret

logger = logging.getLogger(__name__)

LINGER = 5.0
"""Seconds in which a worker that was told that its attempt is gone may read that, whatever it still sends."""

WAITED = "it waits no longer"
"""Why a worker has none of a job that was taken for it when its time was over."""

MAX_NAME = 100
"""Characters of the name of a worker that are kept."""

MAX_ELAPSED = 10 * 366 * 86_400_000
"""Milliseconds that an attempt may be old: beyond that it is a mistake, and no moment could be made of it."""


@define(eq=False)
class WorkingSession:
    """Serves a worker of our own protocol. What it asks for is served one after the other."""

    channel: SharingChannel
    peer: Peer
    attempts: Attempts
    _has_job: bool = False
    _is_cut: bool = False  # a message was begun and not sent to its end: nothing can follow

    async def serve(self, request: Message | StreamedFrame) -> bool:
        """Serve what it asks for; return whether it may ask for more.

        Raises one of CONNECTION_ERRORS, Crowded, StoreError, and what kept the worker from getting a job.
        """
        self._has_job = False
        try:
            match request:
                case AskJob():
                    return await self._give(request)
                case Return():
                    return await self._take_back(request)
                case _:
                    raise AssertionError("a worker asks for nothing else")
        except (NotPermitted, CommandRefused) as error:
            await self._say(Failure(message=str(error)))
            raise

    async def _give(self, request: AskJob) -> bool:
        check_platform_name(request.platform)
        self.peer.check_worker(AskJob, request.platform)
        request.check()
        note(platform=request.platform)
        logger.debug("waits for a job on %s", request.platform)
        secret = secrets.token_bytes(SECRET_SIZE)
        worker = Holder(
            address=str(self.peer),
            name=printable(request.worker[:MAX_NAME]),
            secret_sha256=hashlib.sha256(secret).digest(),
            facts=request.facts,
        )
        attachment = self.attempts.attach(request.platform, worker, secret)
        return await self._attach(
            attachment, partial(self._begin, patience=seconds(request.wait), may_leave=request.may_leave)
        )

    async def _begin(self, attachment: Attachment, *, patience: float, may_leave: bool) -> None:
        until_closed = partial(self._note_pressure, attachment)
        if not await attachment.wait_answered(until_closed, patience=patience, may_leave=may_leave):
            return
        build, secret = attachment.build, attachment.given.secret
        assert secret, "it may come back"
        self._has_job = True
        await self._say(
            GiveJob(
                uuid=build.uuid,
                job=build.job,
                secret=secret,
                time_limit=build.time_limit,
                max_silent=build.max_silent,
            )
        )
        with about_build(build):
            logger.info("begins at %s", self.peer)
            await self._follow(attachment, 0)

    async def _note_pressure(self, attachment: Attachment) -> NoReturn:
        """Take what a worker says that waits, until its connection ends."""
        while True:
            received = await self.channel.receive()
            assert isinstance(received, Alive), "nothing else may come now"
            facts = _checked_facts(received)
            attachment.note_life(facts)
            for fact in facts:
                if fact.name == PRESSURE:
                    self.attempts.note_pressure(attachment.uuid, fact.value)

    async def _take_back(self, request: Return) -> bool:
        self.peer.check(Return)
        if not 0 <= request.elapsed <= MAX_ELAPSED:
            raise RemoteProtocolError(f"an attempt that began {request.elapsed} ms ago")
        match await self.attempts.take_back(request, partial(self.peer.check_worker, Return)):
            case Attachment() as attachment:
                self._has_job = True
                return await self._attach(attachment, self._resume)
            case BuildHead() as build if is_secret(request.secret, build.secret_sha256):
                if build.state == "running":
                    return False  # the server stops, or has failed: the next one has it
                await self._say(ResultStored(uuid=request.uuid))
            case BuildHead(state="lost"):
                await self._say(Gone(uuid=request.uuid, reason="its job went back to the queue"))
            case BuildHead() as build if build.result:
                await self._say(Gone(uuid=request.uuid, reason=str(build.result)))
            case _:
                await self._say(Gone(uuid=request.uuid, reason="no attempt of this worker's is known by that name"))
        return True

    async def _resume(self, attachment: Attachment) -> None:
        while not await attachment.wait_answered(self.channel.wait_closed, patience=ALIVE_INTERVAL):
            await self._say(Alive())
        resumed = attachment.resumed
        await self._say(Continue(lines=resumed.lines))
        with about(uuid=attachment.uuid):
            logger.info("goes on at %s, from line %d", self.peer, resumed.lines)
            await self._follow(attachment, resumed.last)

    async def _attach(self, attachment: Attachment, work: Callable[[Attachment], Awaitable[None]]) -> bool:
        """Work until the owner ends it, and tell the worker how; or until there was no job for too long."""
        has_waited_in_vain = False
        try:
            with attachment.scope:
                await work(attachment)
                has_waited_in_vain = True
        except BaseException as error:
            attachment.detach(self._detached(error))
            if not self._has_job or not isinstance(error, CONNECTION_ERRORS):
                raise
            with about(uuid=attachment.uuid):
                logger.warning("worker %s is away: %s", self.peer, str(error) or "it was silent for too long")
            return False
        if has_waited_in_vain:
            attachment.detach(Detached(reason=given_up(WAITED), counted=False, is_final=True))
            await self._say(NoJob(is_drained=attachment.is_sent_away))
            return True
        if attachment.failure:
            raise attachment.failure
        if attachment.is_released:  # the owner may have had the worker back since, and counts on this session
            attachment.detach(Detached(counted=False))
        return await self._answer(attachment)

    def _detached(self, error: BaseException) -> Detached:
        is_final = not self._has_job
        match error:
            case ConnectionEnded() | trio.BrokenResourceError() | trio.TooSlowError():
                return Detached(counted=self._has_job, is_final=is_final)
            case ProtocolError():
                return Detached(counted=self._has_job, is_final=True)  # it would do the same again
            case Crowded() | trio.Cancelled():
                return Detached(counted=False, is_final=is_final)
            case _:
                return Detached(reason=FAULT, is_final=True)

    async def _answer(self, attachment: Attachment) -> bool:
        if self._is_cut:
            return False
        if attachment.acknowledged:
            await self._say(ResultStored(uuid=attachment.uuid))
            return True
        if attachment.dismissed is None or not self.channel.connection.may_send(Gone):
            return False
        await self._say(Gone(uuid=attachment.uuid, reason=attachment.dismissed))
        if self.channel.connection.states[Side.PEER] is State.REQUESTING:
            return True
        await self.channel.linger(LINGER)  # it may be within a message, and what follows that is nobody's any more
        return False

    async def _say(self, message: Message) -> None:
        self._is_cut = True
        with trio.fail_after(STEP_TIMEOUT):
            await self.channel.send(message)
        self._is_cut = False

    # --- a build ---------------------------------------------------------------------------------------------------

    async def _follow(self, attachment: Attachment, since: int) -> NoReturn:
        """Hand in what comes, until the owner ends it; lines from that time on."""
        async with plain_nursery() as nursery:
            nursery.start_soon(self._say_alive)
            await self._receive_console(attachment, since)
            await receive_result(self.channel, attachment, attachment.uuid)
            while True:
                await self._receive_alive(attachment)
        raise AssertionError("it is ended from without")

    async def _say_alive(self) -> None:
        # what breaks here breaks what is received too, or is noticed by the worker: it reads nothing any more
        with contextlib.suppress(*CONNECTION_ERRORS):
            while True:
                await trio.sleep(ALIVE_INTERVAL)
                await self._say(Alive())

    async def _receive_alive(self, attachment: Attachment) -> None:
        with trio.fail_after(SILENCE):
            received = await self.channel.receive()
        assert isinstance(received, Alive), "nothing else may come now"
        attachment.note_life(_checked_facts(received))

    async def _receive_console(self, attachment: Attachment, since: int) -> None:
        """Hand in console lines until the job is finished; those that came together are handed in together."""
        outputs = Outputs(attachment.uuid)
        while True:
            with trio.fail_after(SILENCE):
                received = await self.channel.receive_outputs(partial(outputs.cut_timed, since=since))
            match received:
                case [TimedLines() as lines]:
                    pass
                case Output():
                    lines = _checked(received, outputs, attachment.uuid, since)
                case Alive():
                    attachment.note_life(_checked_facts(received))
                    continue
                case BuildFacts():
                    _check_uuid(received.uuid, attachment.uuid)
                    _checked_facts(received)
                    await attachment.hand_in(FactsTold(facts=received.facts))
                    continue
                case GiveUp(uuid=uuid, reason=reason):
                    _check_uuid(uuid, attachment.uuid)
                    attachment.detach(Detached(reason=given_up(reason), counted=False, is_final=True))
                    while True:
                        await self._receive_alive(attachment)
                case StreamedFrame():
                    return
                case _:
                    raise AssertionError("a worker that builds sends nothing else")
            since = lines.last
            await attachment.hand_in(Lines(lines=lines))
            if self.channel.has_grant:
                del received, lines
                await attachment.settle()  # the memory is needed until then


def _checked(output: Output, outputs: Outputs, uuid: UUID, since: int) -> TimedLines:
    """Return what is left out in bulk: a line in an unusual form, one that is too long, or a mistake."""
    _check_uuid(output.uuid, uuid)
    if len(output.line) > MAX_LINE:
        raise RemoteProtocolError(f"a console line of {len(output.line)} bytes")
    if output.timestamp is None or output.timestamp < since:
        raise RemoteProtocolError("a console line without a time, or from before the one before it")
    return outputs.timed([output.line], output.timestamp)


def _check_uuid(uuid: UUID, expected: UUID) -> None:
    if uuid != expected:
        raise RemoteProtocolError(f"what comes is of another build: {uuid}")


def _checked_facts(message: Alive | BuildFacts) -> tuple[Fact, ...]:
    """Return the facts of a message. Raises RemoteProtocolError for more than are told, or larger ones."""
    try:
        check_facts(message.facts)
    except InvalidOptions as error:
        raise RemoteProtocolError(str(error)) from error
    return message.facts
