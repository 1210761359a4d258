"""Requests about builds."""

import itertools
import re
from uuid import UUID

from builder.extension.builds import BuildCancelled, CancelBuilds, Dequeue, Dequeued
from builder.model import printable
from builder_server.errors import CommandRefused
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.store import Build

MAX_NAMED = 5
"""Most builds that an error names."""

_HEX = re.compile(r"[0-9a-f]{1,32}")


def begin_of(text: str) -> str | None:
    """Return the begin of a uuid as the database has it, with its dashes; None if the text can be none."""
    digits = text.lower().replace("-", "")
    if not _HEX.fullmatch(digits):
        return None
    cuts = (0, 8, 12, 16, 20, 32)
    return "-".join(part for start, end in itertools.pairwise(cuts) if (part := digits[start:end]))


def ambiguous(text: str, uuids: list[UUID]) -> CommandRefused:
    """Return what is said of a begin that several builds have."""
    names = ", ".join(map(str, uuids[:MAX_NAMED]))
    return CommandRefused(f"{text} is ambiguous: {names}{' and others' if len(uuids) > MAX_NAMED else ''}")


async def cancel(asked: Asked, request: CancelBuilds) -> None:
    """End running builds."""
    builds = await _running(asked, request)
    await asked.attempts.cancel([build.uuid for build in builds], asked.peer)
    ended = [await asked.store.find_build(build.uuid) for build in builds]
    cancelled = [build for build in ended if build is not None and build.ended_by == asked.peer]
    if not cancelled:
        raise CommandRefused(f"{builds[0].uuid} had ended before: {ended[0].result if ended[0] else 'it is forgotten'}")
    for build in cancelled:
        await asked.channel.send(BuildCancelled(uuid=build.uuid, name=build.job.name, platform=build.job.platform))


async def _running(asked: Asked, request: CancelBuilds) -> tuple[Build, ...]:
    name = known(request.target, "no running build of that name")
    found = await asked.store.find_running(name, None, request.platform)
    begin = begin_of(name)
    if not found and begin is not None:
        found = await asked.store.find_running(None, begin, request.platform)
        if len(found) > 1:
            raise ambiguous(name, [build.uuid for build in found])
    if not found:
        where = "" if request.platform is None else f" on {request.platform}"
        raise CommandRefused(f"nothing runs{where} that is called {printable(name)} or has a uuid that begins so")
    return found


async def dequeue(asked: Asked, request: Dequeue) -> None:
    """Take a job from queues."""
    name = known(request.name, f"unknown job {request.name}")
    await asked.channel.send(Dequeued(platforms=await asked.store.dequeue(name, request.platform)))


HANDLERS: Handlers = {CancelBuilds: cancel, Dequeue: dequeue}
