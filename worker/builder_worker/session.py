"""A slot at work: it takes one job from the server, runs it, and has its result delivered."""

import logging
from contextlib import aclosing, closing

import trio
from attrs import frozen

from builder.address import format_address
from builder.errors import ConnectionEnded
from builder.messages import JobRequested, JobSchedule
from builder.model import printable
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.nurseries import plain_nursery
from builder_worker.attempt import Attempt
from builder_worker.build import Setup
from builder_worker.classic import ClassicDelivery
from builder_worker.drain import Drain
from builder_worker.link import Link, Lost
from builder_worker.sandbox import Spare
from builder_worker.spares import Spares

log = logging.getLogger("builder_worker")


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


async def work_once(settings: WorkerSettings, drain: Drain) -> None:
    """Take one job from the server as ``work_next`` does, and no other."""
    async with Link(settings.host, settings.port) as link, Spares(settings.setup.backend) as spares:
        await work_next(settings, drain, link, spares, is_last=True)


async def work_next(
    settings: WorkerSettings, drain: Drain, link: Link, spares: Spares, *, is_last: bool = False
) -> None:
    """Take one job from the server, run it, deliver its result; return without one if the worker drains.

    Unless it ``is_last``, a spare for the next is made while the result is delivered.

    Raises NotConnected, NotGreeted, Lost, ProtocolError, and SandboxError after the server was told of it.
    """
    channel = None
    with drain.idle():
        channel = await link.take()
    if channel is None:
        return
    async with aclosing(channel), spares.taken() as spare:
        given = None
        with drain.idle():
            given = await _wait_job(channel, settings)
        if given is not None:
            await _work(channel, given, settings.setup, spare, None if is_last or drain.begun else spares)


async def _wait_job(channel: Channel, settings: WorkerSettings) -> JobSchedule:
    log.info("waiting for a job for %s from %s", printable(settings.platform), settings.address)
    try:
        await channel.send(JobRequested(platform=settings.platform))
        # no deadline: there may be nothing to do for days; keepalive finds out whether the server still lives
        return await channel.receive_expected(JobSchedule)
    except ConnectionEnded as error:
        raise Lost(f"{settings.address} closed the connection while this worker waited for a job") from error
    except trio.BrokenResourceError as error:
        raise Lost(f"the connection to {settings.address} broke: {reason_of(error)}") from error


async def _work(
    channel: Channel, given: JobSchedule, setup: Setup, spare: Spare | None, following: Spares | None
) -> None:
    """Run one job and deliver its result."""
    log.info("received job %s uuid %s", printable(given.job.name), given.uuid)
    with closing(Attempt(uuid=given.uuid, job=given.job, is_timed=False)) as attempt:
        async with plain_nursery() as nursery:
            nursery.start_soon(attempt.run, setup, spare)
            if following is not None:
                nursery.start_soon(_prepare, attempt, following)
            await ClassicDelivery(channel, attempt).run()
    log.info("job %s uuid %s: %s, delivered", printable(given.job.name), given.uuid, attempt.end.summary())
    if attempt.fault:
        raise attempt.fault


async def _prepare(attempt: Attempt, following: Spares) -> None:
    """Make a spare while the server is busy with the result: the next job may come at once."""
    await attempt.sent.wait()
    await following.make()
