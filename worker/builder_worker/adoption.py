"""What a worker finds of those before it: jobs that run on, or have ended meanwhile, and whose results nobody has yet."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import trio
from attrs import evolve, field, frozen

from builder.endpoint import Servers
from builder.errors import BuilderError
from builder.extension.working import GiveJob
from builder.messages import JobSchedule
from builder.reasons import reason_of
from builder.runtime.logs import about
from builder_worker.assignment import Assignment
from builder_worker.backoff import Backoff
from builder_worker.delivery import give_up
from builder_worker.drain import Drain
from builder_worker.handover import LINES, Handover, Illegible, forget, read_outcome
from builder_worker.sandbox import Backend, JobTaken, Sandbox, SandboxError, job_directory, registry
from builder_worker.spool import LineSpool
from builder_worker.uplink import Uplink

TELL_FOR = 3600.0
"""Seconds for which a server is tried that is to hear that a job is lost: what it gives a worker to come back is less."""

log = logging.getLogger("builder_worker")


def about_job(given: JobSchedule | GiveJob, platform: str) -> AbstractContextManager[None]:
    """Have what is logged in a block name a job that was given, and its attempt."""
    return about(uuid=given.uuid, job=given.job.name, platform=platform)


@frozen(kw_only=True)
class Found:
    """What was found: ``adopted`` ones, to be seen through, and those of which there is nothing to go on with, and why."""

    adopted: list[Assignment] = field(factory=list)
    lost: list[tuple[Handover, str]] = field(factory=list)


async def find(backend: Backend, platform: str, servers: Servers) -> Found:
    """Adopt the jobs of workers for a platform that are gone, in this worker's place. What is left of others can be cleaned up.

    Those of this worker's ``servers`` are delivered to these as they are now, which may be otherwise than before.

    Raises SandboxError if the place can't be read, or is not this user's alone.
    """
    found = Found()
    try:
        places = job_directory.left_over(backend.options.work_root)
    except OSError as error:
        raise SandboxError(f"cannot read {backend.options.work_root}: {error.strerror}") from error
    for place in places:
        try:
            handover = Handover.read(place)
        except FileNotFoundError:
            await _end(backend, place)
            continue
        except (OSError, Illegible) as error:
            log.warning("%s", error)
            await _end(backend, place)
            forget(place)
            await _end(backend, place)
            continue
        if handover.servers.overlaps(servers):
            handover = evolve(handover, servers=servers)
        if handover.platform == platform:
            with about_job(handover.job, platform):
                await _adopt(found, backend, place, handover)
    return found


async def _end(backend: Backend, place: Path) -> None:
    """End a job that nobody waits for: its worker was killed when it was about to do that, or nobody knows whose it is."""
    try:
        async with await registry.adopt(backend, place):
            pass
    except SandboxError:
        pass  # there was none yet, or another worker does it


async def _adopt(found: Found, backend: Backend, place: Path, handover: Handover) -> None:
    try:
        sandbox = await registry.adopt(backend, place)
    except JobTaken:
        return
    except SandboxError as error:
        reason = str(error)
    else:
        try:
            found.adopted.append(_resume(place, handover, sandbox))
        except (OSError, Illegible) as error:
            reason = f"what it has said can't be read: {error}"
            await sandbox.aclose()
        else:
            log.warning("adopted")
            return
    log.error("lost: %s", reason)
    forget(place)
    found.lost.append((handover, f"the worker could not go on with it: {reason}"))


def _resume(place: Path, handover: Handover, sandbox: Sandbox) -> Assignment:
    try:
        result = read_outcome(place)
    except FileNotFoundError:
        result = None
    return Assignment.adopt(handover, sandbox, result, LineSpool.open(place / LINES))


@asynccontextmanager
async def uplink_of(handover: Handover) -> AsyncIterator[Uplink]:
    """Have a way to the servers that gave a job."""
    async with Uplink(handover.servers) as uplink:
        yield uplink


async def tell_lost(handover: Handover, reason: str, drain: Drain) -> None:
    """Tell the server that gave a job that it is lost, as soon as that is there; otherwise it would wait for this worker."""
    backoff = Backoff()
    said = ""
    with drain.idle(), trio.move_on_after(TELL_FOR):
        while True:
            try:
                async with uplink_of(handover) as uplink:
                    return await give_up(uplink, handover, reason)
            except (BuilderError, trio.BrokenResourceError) as error:
                now = f"{handover.servers} was not told that the job is lost: {reason_of(error)}"
                if now != said:
                    with about_job(handover.job, handover.platform):
                        log.warning("%s", now)
                    said = now
            await trio.sleep(backoff.next_pause())
