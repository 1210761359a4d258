"""A store for tests that do without a server, in the kind of database that the test is run with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import databases
import trio
from farm import DEADLINE

from builder.model import Aborted, Exited, Instant, OrbBuildJob, ScriptJob
from builder.runtime.grouping import GroupingDatabase
from builder_server.store import Build, Expanded, Store

if TYPE_CHECKING:
    from builder.runtime.postgres import Location

NOW = Instant(1_795_194_796_123)
HOUR = 3_600_000
LOST = Aborted(message="worker lost")


def script(name: str, platform: str = "p1") -> ScriptJob:
    return ScriptJob(name=name, platform=platform, script=b"#!/bin/sh\n\0\xff")


def uuid(number: int) -> UUID:
    return UUID(int=number)


def expand(job: OrbBuildJob) -> Expanded | None:
    script_job = ScriptJob(name=job.name, platform="p1", script=job.opam_package.encode())
    return Expanded(job=script_job, template="")


def database(store: Store) -> GroupingDatabase:
    assert isinstance(store.database, GroupingDatabase)
    return store.database


@asynccontextmanager
async def opened(path: Path, place: "Location | None" = None) -> AsyncIterator[Store]:
    store = Store.open(place or databases.place(path / "db"))
    try:
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                yield store
                nursery.cancel_scope.cancel()
    finally:
        store.close()


async def take(store: Store, number: int, platform: str = "p1") -> Build:
    taken = await store.take(platform, uuid(number), NOW, expand)
    assert taken.build is not None
    return taken.build


async def running(store: Store) -> tuple[UUID, ...]:
    """Return the builds that are recorded as running."""
    return tuple(build.uuid for build in await store.running())


async def complete(store: Store, number: int, platform: str = "p1") -> Build:
    """Take a job and have it succeed."""
    build = await take(store, number, platform)
    assert await store.finish(build.uuid, NOW, Exited(code=0))
    return build


async def queues(store: Store) -> dict[str, list[str]]:
    return {queue.platform: [job.name for job in queue.jobs] for queue in (await store.info()).queues}
