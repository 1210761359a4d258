"""Requests about builds."""

import contextlib
import itertools
import re
from collections.abc import Sequence
from uuid import UUID

import trio
from attrs import evolve

from builder import execution
from builder.extension.builds import (
    ArtifactEntry,
    ArtifactsListed,
    ArtifactsPiece,
    BuildCancelled,
    BuildShown,
    CancelBuilds,
    Dequeue,
    Dequeued,
    FetchArtifacts,
    HistoryEntry,
    HistoryShown,
    ListArtifacts,
    ScriptShown,
    ShowBuild,
    ShowHistory,
    ShowScript,
)
from builder.model import printable
from builder_server import console
from builder_server.errors import CommandRefused
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.results import FILE_NAME, directory_of
from builder_server.store import BuildHead
from builder_server.upstream import Absent

PIECE = 64 * 1024
"""Bytes of artifacts that are sent at once: each of many clients may take none of its own."""

PIECE_TIMEOUT = 300.0
"""Seconds in which a client takes such a piece."""

MAX_TEXTS = 1024 * 1024
"""Characters of the results of a page: each may have 64 KiB."""

USUAL_COUNT = 100
"""Entries of a page that nobody needs to wait for."""

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
    stay = {build.uuid for build in builds if asked.attempts.has(build.uuid)}
    ended = await _end(asked, [build.uuid for build in builds])
    stay = {uuid for uuid in stay if asked.attempts.has(uuid)}
    # what was moving between servers was at neither of them when it was looked for
    if any(build and build.state == "running" and not build.ended_by and build.uuid not in stay for build in ended):
        ended = await _end(asked, [build.uuid for build in builds])
    cancelled = [
        build
        for build in ended
        if build is not None
        and build.ended_by is not None
        and (build.state == "running" or build.ended_by == asked.peer)
    ]
    if not cancelled:
        raise CommandRefused(_why_not_cancelled(builds[0].uuid, ended[0]))
    for build in cancelled:
        by = None if build.ended_by == asked.peer else build.ended_by
        await asked.channel.send(BuildCancelled(uuid=build.uuid, name=build.name, platform=build.platform, by=by))


async def _end(asked: Asked, uuids: Sequence[UUID]) -> list[BuildHead | None]:
    """End builds that run, and return how each of them is then."""
    await asked.attempts.cancel(uuids, asked.peer)
    return [await asked.store.find_head(uuid) for uuid in uuids]


def _why_not_cancelled(uuid: UUID, found: BuildHead | None) -> str:
    if found is None:
        return f"{uuid} had ended before, and is forgotten"
    if found.state == "running":
        return (
            f"{uuid} is dead, but the server's disk does not take that it was cancelled: make room there, and try again"
        )
    return f"{uuid} had ended before: {found.result}"


async def _running(asked: Asked, request: CancelBuilds) -> tuple[BuildHead, ...]:
    name = known(request.target, "no running build of that name")
    _check_platform(request.platform)
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


def _check_platform(name: str | None) -> None:
    if name is not None:
        known(name, f"unknown platform {name}")


async def dequeue(asked: Asked, request: Dequeue) -> None:
    """Take a job from queues."""
    name = known(request.name, f"unknown job {request.name}")
    _check_platform(request.platform)
    await asked.channel.send(Dequeued(platforms=await asked.store.dequeue(name, request.platform)))


async def show_history(asked: Asked, request: ShowHistory) -> None:
    """Tell a page of the history."""
    request.check()
    _check_platform(request.platform)
    if request.name is not None:
        known(request.name, f"unknown job {request.name}")

    async def make() -> HistoryShown:
        entries: list[HistoryEntry] = []
        size = 0
        for entry in await asked.store.history(request):
            size += len(str(entry.result))
            if entries and size > MAX_TEXTS:
                break
            entries.append(entry)
        return HistoryShown(entries=await _with_presence(asked, entries))

    await asked.channel.send_reply(make, is_large=request.count > USUAL_COUNT)


async def find_build(asked: Asked, target: str) -> HistoryEntry:
    """Return the build whose uuid begins so. Raises CommandRefused where there is none, or several."""
    begin = begin_of(target)
    found = () if begin is None else await asked.store.find_builds(begin, MAX_NAMED + 1)
    if not found:
        raise CommandRefused(f"no build has a uuid that begins with {target}")
    if len(found) > 1:
        raise ambiguous(target, [entry.uuid for entry in found if entry.uuid])
    (entry,) = await _with_presence(asked, found)
    return entry


async def _with_presence(asked: Asked, entries: Sequence[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    """Return entries that tell whether the worker of a running build is away, at whichever server."""
    if all(entry.finished or not entry.uuid for entry in entries):
        return tuple(entries)
    away = (await asked.farm.crew()).away
    return tuple(evolve(entry, away=away.get(entry.uuid)) if entry.uuid else entry for entry in entries)


async def owner_of(asked: Asked, uuid: UUID) -> str | None:
    """Return which server has the files of a build."""
    build = await asked.store.find_head(uuid)
    return None if build is None else build.owner


async def show(asked: Asked, request: ShowBuild) -> None:
    """Tell of a build."""
    entry = await find_build(asked, request.target)
    assert entry.uuid, "it is a build"
    if owner := asked.elsewhere(await owner_of(asked, entry.uuid)):
        shown = BuildShown(entry=entry, has_record=False, absent=owner)
        with contextlib.suppress(Absent):
            async with asked.farm.upstream(owner, asked.client) as upstream:
                await upstream.ask(ShowBuild(target=str(entry.uuid)))
                if isinstance(told := await upstream.only(), BuildShown):
                    shown = told
        await asked.channel.send(shown)
        return
    directory = directory_of(asked.attempts.recorder.data_dir, entry.name, entry.uuid)

    def look() -> BuildShown:
        try:
            size = (directory / console.FILE_NAME).stat().st_size
        except OSError:
            size = None  # it is not kept any longer
        return BuildShown(entry=entry, has_record=(directory / FILE_NAME).exists(), console_size=size)

    await asked.channel.send(await trio.to_thread.run_sync(look))


async def list_artifacts(asked: Asked, request: ListArtifacts) -> None:
    """Tell a page of the artifacts of a build."""
    request.check()

    async def make() -> ArtifactsListed:
        found = await asked.store.list_artifacts(request.uuid, request.behind, request.count)
        artifacts = tuple(ArtifactEntry(path=each.path, size=each.size, sha256=each.sha256) for each in found)
        return ArtifactsListed(artifacts=artifacts)

    await asked.channel.send_reply(make, is_large=request.count > USUAL_COUNT)


async def show_script(asked: Asked, request: ShowScript) -> None:
    """Send the script that a build ran."""

    async def make() -> ScriptShown:
        build = await asked.store.find_build(request.uuid)
        if build is None:
            raise _unknown(request.uuid)
        return ScriptShown(script=build.job.script)

    await asked.channel.send_reply(make, is_large=True)


def _unknown(uuid: UUID) -> CommandRefused:
    return CommandRefused(f"there is no build {uuid}")


async def fetch(asked: Asked, request: FetchArtifacts) -> None:
    """Send the artifacts of a build."""
    build = await asked.store.find_head(request.uuid)
    if build is None:
        raise _unknown(request.uuid)
    if owner := asked.elsewhere(build.owner):
        await asked.farm.pass_on(
            owner, asked.client, request, asked.channel, f"the record of {build.uuid}", PIECE_TIMEOUT
        )
        return
    path = directory_of(asked.attempts.recorder.data_dir, build.name, build.uuid) / FILE_NAME
    try:
        file = await trio.to_thread.run_sync(path.open, "rb")
    except FileNotFoundError as error:
        why = "it runs" if build.state == "running" else "they were uploaded or removed, or it has none"
        raise CommandRefused(f"the server has no artifacts of {request.uuid}: {why}") from error
    with file:
        file.seek(await trio.to_thread.run_sync(execution.artifacts_offset, file))
        while data := await trio.to_thread.run_sync(file.read, PIECE):
            with trio.fail_after(PIECE_TIMEOUT):
                await asked.channel.send(ArtifactsPiece(data=data))


HANDLERS: Handlers = {
    CancelBuilds: cancel,
    Dequeue: dequeue,
    ShowHistory: show_history,
    ShowBuild: show,
    ListArtifacts: list_artifacts,
    FetchArtifacts: fetch,
    ShowScript: show_script,
}
