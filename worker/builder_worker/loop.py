"""How long a worker works: for one job in each slot or until a signal, with pauses while the server is away."""

import logging
import signal
from collections.abc import AsyncIterator, Sequence

import trio
from attrs import frozen

from builder.errors import BuilderError
from builder.runtime import entry, service
from builder.runtime.logs import note
from builder.runtime.nurseries import plain_nursery
from builder_worker.adoption import find, tell_lost
from builder_worker.assignment import Assignment
from builder_worker.backoff import LONGEST_PAUSE, Backoff, Troubles
from builder_worker.choice import prove
from builder_worker.delivery import Abandoned, Revoked
from builder_worker.drain import Drain
from builder_worker.sandbox import SandboxError
from builder_worker.session import NothingToDo, WorkerSettings, see_through, work_next, work_once
from builder_worker.spares import Spares
from builder_worker.uplink import Uplink

log = logging.getLogger("builder_worker")


class Interrupted(BuilderError):
    """SIGINT ended the worker; it killed its jobs, which the server counts as lost."""

    exit_code = 128 + signal.SIGINT


class Terminated(Interrupted):
    """SIGTERM ended the worker; it killed its jobs, which the server counts as lost."""

    exit_code = 128 + signal.SIGTERM


class HungUp(Interrupted):
    """SIGHUP ended a run without a server; its job was killed."""

    exit_code = 128 + signal.SIGHUP


@frozen(kw_only=True)
class Duration:
    """How long a worker works, and how it ends."""

    loop: bool = False
    """Whether each slot takes one job after the other."""

    slots: int = 1
    """How many jobs run at once; each has a connection of its own."""

    drain_timeout: float = 0.0
    """Seconds that running jobs have to end after SIGTERM."""


async def work(settings: WorkerSettings, duration: Duration) -> None:
    """Work off one job in each slot, or jobs until a signal; SIGHUP drains, and so does SIGTERM with a time for it; SIGUSR1
    leaves the jobs to the next worker. Those that an earlier one has left come first.

    Raises Interrupted on SIGINT, on SIGTERM unless there is time and all jobs end in it, and then for one more of them
    too. Without ``loop``, raises what ``work_once`` does, once every slot is done.
    """
    note(platform=settings.platform)
    drain = Drain()
    # whoever started it with SIGHUP ignored, as nohup does, wants it to go on
    hangup = [signal.SIGHUP] if entry.is_wanted(signal.SIGHUP) else []
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, *hangup) as signals:
        entry.deliver()
        async with plain_nursery() as nursery:
            nursery.start_soon(_obey, signals, drain, duration.drain_timeout, nursery)
            await settings.guard.look(drain)
            nursery.start_soon(settings.guard.run, drain)
            found = await find(settings.setup.backend, settings.platform, settings.servers)
            for lost in found.lost:
                nursery.start_soon(tell_lost, *lost, drain)
            await _fill_slots(settings, duration, drain, found.adopted)
            nursery.cancel_scope.cancel()


async def get_ready(settings: WorkerSettings, drain: Drain, *, patient: bool) -> None:
    """Clean up after workers that are gone, and prove the sandbox; with ``patient`` again and again until it works, for a busy machine is quiet again some day.

    Raises SandboxError without ``patient``.
    """
    backoff, troubles = Backoff(), Troubles()
    while not drain.begun:
        try:
            for line in await settings.setup.backend.clean_up():
                log.warning("%s", line)
            await prove(settings.setup, settings.platform)
        except SandboxError as error:
            if not patient:
                raise
            await _pause(backoff, troubles, str(error), drain)
        else:
            return


async def _pause(backoff: Backoff, troubles: Troubles, reason: str, drain: Drain) -> None:
    pause = backoff.next_pause()
    if troubles.is_news(reason):
        log.warning("%s; next attempt in %.0f s, then each within %.0f s", reason, pause, backoff.longest)
    with drain.idle():
        await trio.sleep(pause)


async def _obey(signals: AsyncIterator[int], drain: Drain, drain_timeout: float, nursery: trio.Nursery) -> None:
    stopping = False
    async for number in signals:
        if number == signal.SIGHUP:
            if not drain.begun:
                log.warning("draining on SIGHUP: no more jobs are taken, running ones may end")
                drain.begin()
            continue
        service.notify("STOPPING=1")
        if number == signal.SIGUSR1:
            log.warning("ended by SIGUSR1; jobs left to the next worker: %d", drain.leave())
            nursery.cancel_scope.cancel()
        elif number == signal.SIGTERM and drain_timeout and not stopping:
            log.warning("draining: running jobs may end within %g s; another signal kills them", drain_timeout)
            stopping = True
            drain.begin()
            nursery.start_soon(_end_after, drain_timeout)
        else:
            ended = Terminated if number == signal.SIGTERM else Interrupted
            raise ended(f"ended by {signal.Signals(number).name}")


async def _end_after(seconds: float) -> None:
    await trio.sleep(seconds)
    raise Terminated(f"ended by SIGTERM; what was not done within {seconds:g} s was killed")


async def _fill_slots(
    settings: WorkerSettings, duration: Duration, drain: Drain, adopted: Sequence[Assignment]
) -> None:
    """Run all slots to their end, whatever happens in one of them; then raise the first error.

    Each begins with an adopted job, if there is one left, and takes others when the sandbox was proved to work. Where
    there are fewer slots than before, the other jobs run beside them.
    """
    errors: list[Exception] = []
    ready = trio.Event()
    troubles = Troubles()

    async def see_through_elsewhere(assignment: Assignment) -> None:
        """Return when the job has ended. A result for another server than this worker's may wait for ever, beside the slot."""
        with trio.CancelScope() as waiting:

            async def run() -> None:
                await _see_through(assignment, settings, drain, nursery)
                waiting.cancel()

            nursery.start_soon(run)
            await assignment.ended.wait()

    async def run_slot(number: int) -> None:
        try:
            if number < len(adopted):
                if duration.loop and not adopted[number].is_of(settings.servers):
                    await see_through_elsewhere(adopted[number])
                else:
                    await _see_through(adopted[number], settings, drain, nursery if duration.loop else None)
            if number < duration.slots and (duration.loop or number >= len(adopted)):
                await ready.wait()
                await (
                    _work_forever(settings, drain, troubles, nursery) if duration.loop else work_once(settings, drain)
                )
        except NothingToDo as error:
            log.info("%s", error)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    async with plain_nursery() as nursery:
        for number in range(max(duration.slots, len(adopted))):
            nursery.start_soon(run_slot, number)
        if duration.loop or len(adopted) < duration.slots:
            await get_ready(settings, drain, patient=duration.loop)
        service.notify("READY=1")
        ready.set()
    if errors:
        raise errors[0]


async def _see_through(
    assignment: Assignment, settings: WorkerSettings, drain: Drain, telling: trio.Nursery | None
) -> None:
    """Work off an adopted job; what goes wrong is raised, or where there is a nursery for ``telling`` the server, logged."""
    try:
        await see_through(assignment, settings, drain)
    except (BuilderError, OSError) as error:
        if telling is None:
            raise
        log.warning("%s", error)
        _tell(error, drain, telling)
    except Exception:
        if telling is None:
            raise
        log.exception("a fault of this worker")


def _tell(error: Exception, drain: Drain, telling: trio.Nursery) -> None:
    """Have the server told of a job that was killed without it."""
    if isinstance(error, Abandoned):
        telling.start_soon(tell_lost, error.handover, error.reason, drain)


async def _work_forever(settings: WorkerSettings, drain: Drain, troubles: Troubles, telling: trio.Nursery) -> None:
    async with Uplink(settings.servers) as uplink, Spares(settings.setup.backend) as spares:
        await _work_on(settings, drain, uplink, spares, troubles, telling)


async def _work_on(
    settings: WorkerSettings, drain: Drain, uplink: Uplink, spares: Spares, troubles: Troubles, telling: trio.Nursery
) -> None:
    backoff = Backoff()
    while not drain.begun:
        begin = trio.current_time()
        try:
            await work_next(settings, drain, uplink, spares)
        except NothingToDo:
            raise
        except Revoked as error:
            log.warning("%s", error)
            backoff.reset()
            continue
        except (BuilderError, OSError) as error:
            reason = str(error)
            _tell(error, drain, telling)
        except Exception as error:
            log.exception("a fault of this worker")
            reason = type(error).__name__
        else:
            backoff.reset()
            troubles.forget()
            continue
        if trio.current_time() - begin > LONGEST_PAUSE:
            backoff.reset()  # the server was there for a while
            troubles.forget()
        await _pause(backoff, troubles, reason, drain)
