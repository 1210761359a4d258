"""A slot at work: it takes one job from the server, runs it, and has its result delivered."""

import logging
from contextlib import AsyncExitStack, closing, suppress
from math import inf

import trio
from attrs import evolve, field, frozen

from builder.endpoint import Servers
from builder.errors import BuilderError, ConnectionEnded
from builder.extension.working import Alive, AskJob, Fact, GiveJob, GiveUp, NoJob
from builder.framing import StreamedFrame
from builder.messages import Failure, JobRequested, JobSchedule, Message
from builder.model import printable
from builder.quantities import format_duration
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.nurseries import plain_nursery
from builder_worker import facts
from builder_worker.adoption import about_job, uplink_of
from builder_worker.allowances import tighten
from builder_worker.assignment import Assignment
from builder_worker.backoff import Backoff
from builder_worker.build import Setup
from builder_worker.classic import ClassicDelivery
from builder_worker.delivery import GIVE_UP_TIMEOUT, Delivery
from builder_worker.drain import Drain
from builder_worker.guard import Guard
from builder_worker.handover import Handover
from builder_worker.pressure import Pressure, Reading, Thresholds
from builder_worker.sandbox import JobLeft, Limits, Spare
from builder_worker.spares import Spares
from builder_worker.uplink import Lost, NotAllowed, Uplink

log = logging.getLogger("builder_worker")

BROKEN = ConnectionEnded, trio.BrokenResourceError
"""What a connection ends with that the other side has ended: whoever reads there is told."""


@frozen(kw_only=True)
class WorkerSettings:
    """What the worker was told at its start."""

    servers: Servers
    platform: str
    setup: Setup

    name: str = ""
    """What its operator calls it."""

    reconnect_for: float = 0.0
    """Seconds for which a job goes on while the server is away."""

    wait: float | None = None
    """Seconds for which a job is waited for; None: for ever."""

    facts: tuple[Fact, ...] = ()
    """What the server is told of it, besides what changes."""

    guard: Guard = field(factory=lambda: Guard(Pressure(Thresholds()), Reading))
    """What tells whether the machine can bear another job."""


class NothingToDo(BuilderError):
    """There was no job for as long as this worker waits for one. It is no failure."""

    exit_code = 0


async def work_once(settings: WorkerSettings, drain: Drain) -> None:
    """Take one job from the server as ``work_next`` does, and no other."""
    async with Uplink(settings.servers) as uplink, Spares(settings.setup.backend) as spares:
        await work_next(settings, drain, uplink, spares, is_last=True)


async def work_next(
    settings: WorkerSettings, drain: Drain, uplink: Uplink, spares: Spares, *, is_last: bool = False
) -> None:
    """Take one job from the server, run it, deliver its result; return without one if the worker drains.

    Unless it ``is_last``, a spare for the next is made while the result is delivered.

    Raises NothingToDo, NotConnected, NotGreeted, Lost, Revoked, ProtocolError, and SandboxError after the server was told of it.
    """
    is_usable = False
    try:
        async with AsyncExitStack() as taken:
            given = None
            with drain.idle():
                await _open(uplink, settings.guard)
                spare = await taken.enter_async_context(spares.taken())
                given = await _wait_anywhere(uplink, settings)
                if isinstance(given, GiveJob) and settings.guard.reason and not is_last:
                    await _give_up(uplink, given, settings)
                    given = None
            if given is not None:
                following = None if is_last or drain.begun else spares
                await _work(uplink, given, settings, drain, spare, following)
                is_usable = uplink.is_ours  # and nothing was left unsaid there
    finally:
        if not is_usable:
            await uplink.close()


async def _open(uplink: Uplink, guard: Guard) -> None:
    """See that there is a connection on which a job may come.

    A server of ours is told why none is taken, so that it can tell, and gives none. Of another one none is asked for meanwhile.
    """
    await uplink.open()
    while guard.reason and not uplink.is_ours:
        await uplink.close()
        await guard.wait_relieved()
        await uplink.open()


async def _give_up(uplink: Uplink, given: GiveJob, settings: WorkerSettings) -> None:
    """Let a job go back to its queue that came when the machine could not bear it any more."""
    reason = settings.guard.reason
    with about_job(given, settings.platform):
        log.warning("is left to another worker: %s", reason)
    with suppress(*BROKEN), trio.move_on_after(GIVE_UP_TIMEOUT):
        await uplink.connection.send(GiveUp(uuid=given.uuid, reason=reason))
        await uplink.connection.receive()


async def _wait_given(uplink: Uplink, settings: WorkerSettings) -> Message | StreamedFrame:
    """Ask a server of ours for a job and return its answer; tell it meanwhile whether the machine can bear one."""
    guard = settings.guard
    changed = guard.changed.next
    told = (*settings.facts, *facts.passing(guard.reason or None))
    wait = None if settings.wait is None else round(settings.wait * 1000)
    asked = AskJob(platform=settings.platform, worker=settings.name, facts=told, wait=wait, may_leave=uplink.has_others)
    await uplink.connection.send(asked)
    answer: Message | StreamedFrame | None = None
    async with plain_nursery() as nursery:
        nursery.start_soon(_tell_pressure, uplink.connection, guard, changed)
        answer = await uplink.connection.receive()
        nursery.cancel_scope.cancel()
    assert answer is not None, "the block has an end, or an error"
    return answer


async def _tell_pressure(channel: Channel, guard: Guard, changed: trio.Event) -> None:
    """Say again and again what has changed: whole messages, whatever ends it."""
    while True:
        await changed.wait()
        changed = guard.changed.next
        if not channel.connection.may_send(Alive):  # it was answered
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GIVE_UP_TIMEOUT), suppress(*BROKEN):
            await channel.send(Alive(facts=facts.passing(guard.reason)))


async def _wait_anywhere(uplink: Uplink, settings: WorkerSettings) -> JobSchedule | GiveJob:
    """Wait for a job, at another server where one is drained: after a pause, for it may be that no other answers."""
    backoff = Backoff()
    while isinstance(given := await _wait_job(uplink, settings), NoJob):
        log.info("%s is drained: another server is asked", uplink)
        await uplink.leave()
        await trio.sleep(backoff.next_pause())
        await _open(uplink, settings.guard)
    return given


async def _wait_job(uplink: Uplink, settings: WorkerSettings) -> JobSchedule | GiveJob | NoJob:
    """Wait for a job of a server, or until it says that it is drained."""
    platform = settings.platform
    log.log(logging.DEBUG if uplink.is_refused else logging.INFO, "waiting for a job for %s from %s", platform, uplink)
    try:
        # no deadline: there may be nothing to do for days; keepalive finds out whether the server still lives
        if uplink.is_ours:
            given = await _wait_given(uplink, settings)
            uplink.is_refused = isinstance(given, Failure)
            if isinstance(given, Failure):
                raise NotAllowed(f"{uplink} refuses this worker: {printable(given.message)}")
            if isinstance(given, NoJob) and not given.is_drained:
                raise _nothing_to_do(settings)
            assert isinstance(given, GiveJob | NoJob), "the table of messages allows no other"
            return given
        await uplink.connection.send(JobRequested(platform=platform))
        with trio.fail_after(inf if settings.wait is None else settings.wait):
            return await uplink.connection.receive_expected(JobSchedule)
    except trio.TooSlowError:
        raise _nothing_to_do(settings) from None
    except ConnectionEnded as error:
        raise Lost(f"{uplink} closed the connection while this worker waited for a job") from error
    except trio.BrokenResourceError as error:
        raise Lost(f"the connection to {uplink} broke: {reason_of(error)}") from error


def _nothing_to_do(settings: WorkerSettings) -> NothingToDo:
    assert settings.wait is not None, "it waited no longer"
    return NothingToDo(f"there was no job for {settings.platform} for {format_duration(round(settings.wait * 1000))}")


async def see_through(assignment: Assignment, settings: WorkerSettings, drain: Drain) -> None:
    """Have the result of a job delivered that another worker has started. Raises Lost, Revoked and SandboxError."""
    assert assignment.handover is not None, "it was found by that"
    setup = _setup(assignment.handover.job, settings)
    with about_job(assignment.handover.job, settings.platform):
        async with uplink_of(assignment.handover) as uplink:
            await _run(uplink, assignment, settings, setup, drain)


async def _work(
    uplink: Uplink,
    given: JobSchedule | GiveJob,
    settings: WorkerSettings,
    drain: Drain,
    spare: Spare | None,
    following: Spares | None,
) -> None:
    """Run one job and deliver its result."""
    with about_job(given, settings.platform):
        log.info("received")
        setup = _setup(given, settings)
        assignment = Assignment(uuid=given.uuid, job=given.job, handover=_handover(given, settings, setup))
        await _run(uplink, assignment, settings, setup, drain, spare, following)


async def _run(
    uplink: Uplink,
    assignment: Assignment,
    settings: WorkerSettings,
    setup: Setup,
    drain: Drain,
    spare: Spare | None = None,
    following: Spares | None = None,
) -> None:
    with closing(assignment), drain.running(assignment):
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(assignment.run, setup, spare)
                if following is not None:
                    nursery.start_soon(_prepare, assignment, following)
                await _deliver(uplink, assignment, settings)
                assignment.released.set()
        except JobLeft:
            return
    log.info("%s, delivered", assignment.end.summary())
    if assignment.fault:
        raise assignment.fault


async def _deliver(uplink: Uplink, assignment: Assignment, settings: WorkerSettings) -> None:
    if assignment.handover is not None:
        await Delivery(uplink, assignment, assignment.handover, settings.reconnect_for).run()
    else:
        await ClassicDelivery(uplink.connection, assignment).run()


def _handover(given: JobSchedule | GiveJob, settings: WorkerSettings, setup: Setup) -> Handover | None:
    """Return what is written down of an attempt that outlives its connection."""
    if not isinstance(given, GiveJob):
        return None
    told = facts.of_job(given.job, setup)
    return Handover(servers=settings.servers, platform=settings.platform, job=given, facts=told)


def _setup(given: JobSchedule | GiveJob, settings: WorkerSettings) -> Setup:
    """Return how a job is run: its own limits tighten those of the worker."""
    if not isinstance(given, GiveJob):
        return settings.setup
    timeout, silent = (None if ms is None else ms / 1000 for ms in (given.time_limit, given.max_silent))
    limits = tighten(settings.setup.limits, Limits(timeout=timeout, max_silent=silent))
    return evolve(settings.setup, limits=limits, worker_grace=settings.reconnect_for)


async def _prepare(assignment: Assignment, following: Spares) -> None:
    """Make a spare while the server is busy with the result: the next job may come at once."""
    await assignment.sent.wait()
    await following.make()
