"""A worker's connection: one job, from the hello to the result.

The classic protocol does not acknowledge a result. It counts as delivered when all of it was sent and the server
then closed the connection properly; a server that closes earlier, or resets, has lost it and will run the job again.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from math import inf
from uuid import UUID

import trio
from attrs import frozen

from builder import codec
from builder.address import format_address
from builder.errors import BuilderError, ConnectionEnded, ProtocolError
from builder.execution import FinishedHead, finished_head
from builder.framing import frame_header
from builder.history import WORKER_FAULT
from builder.messages import WORKER_VERSION, Hello, JobFinished, JobRequested, JobSchedule, Output, Role, ServerHello
from builder.model import Aborted, Result, describe_result, printable
from builder.order import Side
from builder.outputs import Outputs
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.nurseries import plain_nursery
from builder.runtime.sockets import tune
from builder_worker.artifacts import Collection
from builder_worker.build import Setup, run_build
from builder_worker.console import only_lines, remark
from builder_worker.drain import Drain
from builder_worker.sandbox import SandboxError, Spare
from builder_worker.spares import Spares
from builder_worker.trees import TreeChanged

CONNECT_TIMEOUT = 30.0
"""Seconds for the look-up of the name and the connection together."""

HELLO_TIMEOUT = 30.0
"""Seconds in which a server answers a hello."""

CLOSE_TIMEOUT = 3600.0
"""Seconds in which a server stores a result and closes; the original uploads it first, and can only send it once."""

STALL_TIMEOUT = 3600.0
"""Seconds in which a server that is there takes something of what it is sent: one that was stopped may go on."""

log = logging.getLogger("builder_worker")


class NotConnected(BuilderError):
    """There is no connection to the server."""

    exit_code = 3


class NotGreeted(ProtocolError):
    """The server closed the connection instead of greeting, or something else than a server answers there."""


class Lost(BuilderError):
    """The server went away before it had the result of a job, or while this worker waited for one."""

    exit_code = 5


@frozen(kw_only=True)
class WorkerSettings:
    """What the worker was told at its start."""

    host: str
    port: int
    platform: str
    setup: Setup

    @property
    def address(self) -> str:
        """The server's address, as people write it."""
        return format_address(self.host, self.port)


_HELLO = Hello(role=Role.WORKER, version=WORKER_VERSION)


def load() -> None:
    """Load what the first message would have to wait for."""
    codec.encode(_HELLO)


async def work_once(settings: WorkerSettings, drain: Drain) -> None:
    """Take one job from the server as ``work_next`` does, and no other."""
    async with Spares(settings.setup.backend) as spares:
        await work_next(settings, drain, spares, is_last=True)


async def work_next(settings: WorkerSettings, drain: Drain, spares: Spares, *, is_last: bool = False) -> None:
    """Take one job from the server, run it, deliver its result; return without one if the worker drains.

    Unless it ``is_last``, a spare for the next is made while the result is delivered.

    Raises NotConnected, NotGreeted, Lost, ProtocolError, and SandboxError after the server was told of it.
    """
    stream = None
    with drain.idle():
        stream = await _connect(settings)
    if stream is None:
        return
    async with stream, spares.taken() as spare:
        channel = Channel(stream, Side.PEER)
        try:
            schedule = None
            with drain.idle():
                await _greet(channel, settings)
                schedule = await _wait_job(channel, settings)
            if schedule is not None:
                following = None if is_last or drain.begun else spares
                await _Delivery(channel, schedule, settings.setup, spare, following).run()
        except trio.BrokenResourceError as error:
            raise Lost(f"the connection to {settings.address} broke: {reason_of(error)}") from error


async def _connect(settings: WorkerSettings) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            stream = await trio.open_tcp_stream(settings.host, settings.port)
    except trio.TooSlowError as error:
        raise NotConnected(f"cannot reach {settings.address}: no answer for {CONNECT_TIMEOUT:g} s") from error
    except OSError as error:
        raise NotConnected(f"cannot reach {settings.address}: {reason_of(error)}") from error
    tune(stream)
    return stream


async def _greet(channel: Channel, settings: WorkerSettings) -> None:
    try:
        with trio.fail_after(HELLO_TIMEOUT):
            await channel.send(_HELLO)
            await channel.receive_expected(ServerHello)
    except trio.TooSlowError as error:
        raise NotGreeted(
            f"{settings.address} does not answer as a builder-server: silent for {HELLO_TIMEOUT:g} s"
        ) from error
    except trio.BrokenResourceError as error:
        raise NotGreeted(f"{settings.address} broke the connection before its hello: {reason_of(error)}") from error
    except ConnectionEnded as error:
        raise NotGreeted(
            f"{settings.address} closed the connection without a hello: is it a builder-server?"
        ) from error
    except ProtocolError as error:
        raise NotGreeted(f"{settings.address} does not answer as a builder-server: {error}") from error


async def _wait_job(channel: Channel, settings: WorkerSettings) -> JobSchedule:
    await channel.send(JobRequested(platform=settings.platform))
    log.info("waiting for a job for %s from %s", printable(settings.platform), settings.address)
    try:
        # no deadline: there may be nothing to do for days; keepalive finds out whether the server still lives
        return await channel.receive_expected(JobSchedule)
    except ConnectionEnded as error:
        raise Lost(f"{settings.address} closed the connection while this worker waited for a job") from error


class _Delivery:
    """Runs one job and delivers its result while the server is there."""

    def __init__(
        self, channel: Channel, schedule: JobSchedule, setup: Setup, spare: Spare | None, following: Spares | None
    ) -> None:
        self._channel = channel
        self._setup = setup
        self._spare = spare
        self._following = following
        self._uuid: UUID = schedule.uuid
        self._outputs = Outputs(schedule.uuid)
        self._job = schedule.job
        self._quiet_until = -inf  # the result is not sent before
        self._last_piece = False  # the result is sent, or the end of it is on its way
        self._closed = trio.Event()
        self._end: Exception | None = None  # how the connection ended
        self._summary = ""
        self._fault: SandboxError | None = None

    async def run(self) -> None:
        log.info("received job %s uuid %s", printable(self._job.name), self._uuid)
        delivered = False
        async with plain_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await self._work()
            if self._following is not None:
                await self._following.make()  # the server is busy with the result, and the next job may come at once
            await self._wait_stored()
            delivered = True
            nursery.cancel_scope.cancel()
        if not delivered:
            raise Lost(f"the server went away ({_reason_of_end(self._end)}); the job was killed") from self._end
        log.info("job %s uuid %s: %s, delivered", printable(self._job.name), self._uuid, self._summary)
        if self._fault:
            raise self._fault

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Notice the end of the connection; before the result is out, it is the end of the job too."""
        try:
            await self._channel.wait_closed()
        except (ProtocolError, trio.BrokenResourceError) as error:
            self._end = error
        self._closed.set()
        if not self._last_piece:
            scope.cancel()

    async def _work(self) -> None:
        """Run the job and send all there is to send."""
        try:
            async with run_build(self._job, self._uuid, self._setup, self._send_lines, self._spare) as outcome:
                await self._finish(outcome.result, outcome.artifacts)
        except SandboxError as error:
            log.error("%s", error)
            self._fault = error
        if self._fault and not self._last_piece:
            nothing = Collection()
            await self._send_lines([remark(nothing.summary())])
            await self._finish(Aborted(message=f"{WORKER_FAULT}{self._fault}"), nothing)

    async def _send_lines(self, lines: Sequence[bytes]) -> None:
        with _taking():
            await self._channel.send_bytes(Output, self._outputs.join(only_lines(lines)))
        self._quiet_until = trio.current_time() + self._channel.connection.protocol.result_gap

    async def _finish(self, result: Result, artifacts: Collection) -> None:
        """Send the result and the artifacts."""
        self._summary = f"{describe_result(result)}, {artifacts.summary()}"
        left = artifacts.length
        head = finished_head(FinishedHead(uuid=self._uuid, result=result), left)
        await trio.sleep_until(self._quiet_until)
        self._last_piece = left == 0
        with _taking():
            await self._channel.send_bytes(JobFinished, frame_header(len(head) + left) + head)
        with closing(artifacts.chunks()) as chunks:
            while left:
                try:
                    data = await trio.to_thread.run_sync(next, chunks, b"")
                except OSError as error:
                    raise TreeChanged(f"an artifact can't be read any more: {error}") from error
                left -= len(data)
                self._last_piece = left == 0
                with _taking():
                    await self._channel.send_body(data)

    async def _wait_stored(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT) as waiting:
            await self._closed.wait()
        if waiting.cancelled_caught:
            raise Lost(f"the server has not taken the result for {CLOSE_TIMEOUT:g} s")
        if not isinstance(self._end, ConnectionEnded):
            raise Lost(f"the server did not take the result: {_reason_of_end(self._end)}") from self._end


@contextmanager
def _taking() -> Iterator[None]:
    """Bound a block in which the server has to take something."""
    try:
        with trio.fail_after(STALL_TIMEOUT):
            yield
    except trio.TooSlowError as error:
        raise Lost(f"the server has taken nothing for {STALL_TIMEOUT:g} s; the job was killed") from error


def _reason_of_end(error: Exception | None) -> str:
    return reason_of(error) if error else "it closed the connection"
