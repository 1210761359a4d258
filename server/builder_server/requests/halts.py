"""Requests about workers, and of those who drain, and resume."""

import datetime as dt

import trio

from builder import __version__
from builder.extension.crew import MAX_WORKERS, ListWorkers, WorkersListed
from builder.extension.halting import AwaitIdle, Halt, Halted, LiftHalt, StillRunning, Target
from builder_server import crew
from builder_server.errors import CommandRefused
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.store.waking import targets_of

PAUSE = 0.05
"""Seconds between two looks at what runs: on a busy server something changes all the time."""


async def halt(asked: Asked, request: Halt) -> None:
    """Drain the server, a platform or a worker."""
    request.check()
    now = asked.now()
    until = None if request.duration is None else now.plus(dt.timedelta(milliseconds=request.duration))
    state, is_new = await asked.store.halt(request.target, now, asked.peer, request.reason, until)
    run = await asked.store.count_running(request.target)
    workers = await _count_workers(asked, request.target)
    await asked.channel.send(Halted(halt=state, run=run, is_new=is_new, workers=workers))


async def _count_workers(asked: Asked, target: Target) -> int:
    """Return how many workers that concerns, of each other server among a page of them."""
    told, _ = await asked.farm.ask_others(asked.client, ListWorkers(count=MAX_WORKERS))
    return sum(owner.is_drained((target,)) for owner in asked.attempts.owners) + sum(
        target in targets_of(server, each.place.platform, each.place.name)
        for server, reply in told.items()
        if isinstance(reply, WorkersListed)
        for each in reply.workers
    )


async def resume(asked: Asked, request: LiftHalt) -> None:
    """Hand out jobs there again."""
    request.target.check()
    await asked.store.resume(request.target)


async def await_idle(asked: Asked, request: AwaitIdle) -> None:
    """Answer when nothing runs any more there."""
    request.target.check()
    waking = asked.store.waking
    told = 0
    while True:
        changed = waking.changes.next
        if request.target not in waking.halts:
            raise CommandRefused(f"{request.target} is not drained")
        count = await asked.store.count_running(request.target)
        if not count:
            return
        if count != told:
            told = count
            await asked.channel.send(StillRunning(count=count))
        await changed.wait()
        await trio.sleep(PAUSE)


async def list_workers(asked: Asked, request: ListWorkers) -> None:
    """Tell a page of workers."""
    request.check()
    if request.platform is not None:
        known(request.platform, f"unknown platform {request.platform}")

    async def make() -> WorkersListed:
        now = asked.now()
        owners = asked.attempts.owners
        pages = [crew.page(owners, request, asked.store.waking.halts, now, asked.store.owner)]
        number = len(owners)
        told, absent = ({}, ()) if asked.is_relayed else await asked.farm.ask_others(asked.client, request)
        for reply in told.values():
            if isinstance(reply, WorkersListed):
                pages.append(reply.workers)
                number += reply.number
        workers = crew.merged(pages, request.count)
        if not workers and not asked.is_relayed and request.platform is not None:
            await _check_platform(asked, request.platform)
        return WorkersListed(now=now, release=__version__, number=number, workers=workers, absent=absent)

    await asked.channel.send_reply(make, is_large=False)


async def _check_platform(asked: Asked, name: str) -> None:
    if not await asked.store.has_platform(name):
        raise CommandRefused(f"unknown platform {name}")


HANDLERS: Handlers = {ListWorkers: list_workers, Halt: halt, LiftHalt: resume, AwaitIdle: await_idle}
"""What answers them."""
