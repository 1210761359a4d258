"""Takes over what the original has left: its ``state`` file, once, and records of builds that the database does not know."""

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import trio
from attrs import evolve, frozen

from builder import codec
from builder.errors import BuilderError, InvalidName, ProtocolError
from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd, ExecutionHead, read_execution
from builder.model import (
    ConsoleLine,
    DroppedPlatform,
    OrbBuildJob,
    Queue,
    ScheduleItem,
    ScriptJob,
    StateItem,
    raw,
)
from builder.outputs import Outputs
from builder.reasons import reason_of
from builder.runtime.files import sync_directory
from builder.runtime.reversal import Reversal
from builder_server import console
from builder_server.names import IMPORTED_STATE, STATE, check_job_name, check_package, check_platform_name
from builder_server.results import FILE_NAME, ArtifactHashes, directory_of
from builder_server.store import Build, Store

logger = logging.getLogger(__name__)


class ImportFailed(BuilderError):
    """The ``state`` file can't be taken over. Moving it away starts the server without it."""

    exit_code = 6


async def import_state(store: Store, data_dir: Path) -> None:
    """Import ``state`` if there is one and the database is new, and keep it as ``state.imported``. Raises ImportFailed."""
    path = data_dir / STATE
    if not path.exists():
        return
    if not await store.is_pristine():
        logger.warning("%s is ignored: there is a database already; move it away", path)
        return
    try:
        items = await trio.to_thread.run_sync(lambda: codec.decode_state(path.read_bytes()))
    except (OSError, ProtocolError) as error:
        raise ImportFailed(f"can't import {path}: {error}; move it away to start without it") from error
    accepted = [_without_unknown(item) for item in items if _is_acceptable(item)]
    await store.import_state(accepted)
    try:
        path.rename(data_dir / IMPORTED_STATE)
        sync_directory(data_dir)
    except OSError as error:
        raise ImportFailed(f"can't rename {path} after its import: {error}") from error
    jobs = sum(isinstance(item, ScheduleItem) for item in accepted)
    logger.info("imported %d jobs from %s, kept as %s", jobs, path, IMPORTED_STATE)


def _without_unknown(item: StateItem) -> StateItem:
    """Leave out of a queue what no accepted entry can have scheduled."""
    if not isinstance(item, Queue):
        return item
    return evolve(item, jobs=tuple(job for job in item.jobs if _is_job_name(job.name)))


def _is_job_name(name: str) -> bool:
    try:
        check_job_name(name)
    except InvalidName:
        return False
    return True


def _is_acceptable(item: StateItem) -> bool:
    """Return whether the names in an entry may be used; one that may not is left out with a warning."""
    try:
        match item:
            case ScheduleItem(job=ScriptJob(name=name, platform=platform)):
                check_job_name(name)
                check_platform_name(platform)
            case ScheduleItem(job=OrbBuildJob(name=name, opam_package=package)):
                check_job_name(name)
                check_package(package)
            case Queue(platform=platform) | DroppedPlatform(platform=platform):
                check_platform_name(platform)
    except InvalidName as error:
        logger.warning("an entry of the imported state is left out: %s", error)
        return False
    return True


# --- records of builds ---------------------------------------------------------------------------------------------


class _Damaged(BuilderError):
    """A record can't be taken over."""


@frozen(kw_only=True)
class Imported:
    """How many records were taken over, were known already, and can't be taken over.

    ``uploads`` are those of the known ones that were to go nowhere, and are to be uploaded now.
    """

    new: int = 0
    known: int = 0
    damaged: int = 0
    uploads: int = 0


async def import_builds(store: Store, data_dir: Path, *, upload: bool) -> Imported:
    """Take over each record DIR/JOB/UUID/full that the database does not know. With ``upload`` they are to be uploaded, and so
    are those that were taken over before without it.

    Raises StoreError, and OSError where the directory can't be read; a record that is damaged is named in the log.
    """
    found = Imported()
    for path in await trio.to_thread.run_sync(lambda: sorted(_records(data_dir))):
        uuid = UUID(path.parent.name)
        if await store.find_head(uuid) is not None:
            is_new = upload and await store.upload_imported(uuid)
            found = evolve(found, known=found.known + 1, uploads=found.uploads + is_new)
            continue
        with closing(ArtifactHashes(path.parent)) as hashes:
            try:
                build = await trio.to_thread.run_sync(_read, data_dir, path, uuid, hashes)
            except (BuilderError, OSError) as error:
                logger.warning("%s is left out: %s", path, reason_of(error))
                found = evolve(found, damaged=found.damaged + 1)
                continue
            await store.import_build(build, hashes.batches, upload=upload)
        found = evolve(found, new=found.new + 1)
    return found


def _records(data_dir: Path) -> Iterator[Path]:
    """Yield the records that lie where records lie; links are none."""
    for directory in data_dir.glob("*/*/"):
        path = directory / FILE_NAME
        is_there = path.is_file() and not any(each.is_symlink() for each in (path, directory, directory.parent))
        if is_there and _is_uuid(directory.name):
            yield path


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _read(data_dir: Path, path: Path, uuid: UUID, hashes: ArtifactHashes) -> Build:
    """Return the build of a record, and write its console, unless there is one, as observers are sent it."""
    head: ExecutionHead | None = None
    end: ExecutionEnd | None = None
    with path.open("rb") as file, closing(Reversal(path.parent)) as lines:
        outputs = Outputs(uuid)
        for event in read_execution(file):
            match event:
                case ExecutionHead():
                    head = event
                case ConsoleLine(delta=delta, line=line):
                    lines.add(outputs.join([line], delta))
                case ExecutionEnd():
                    end = event
                case ArtifactStart(path=name, size=size):
                    hashes.start(raw(name), size)
                case ArtifactData(data=data):
                    hashes.data(data)
        hashes.finish()
        assert head, "a value that is complete has one"
        assert end, "likewise"
        check_job_name(head.job.name)
        check_platform_name(head.job.platform)
        if head.uuid != uuid or path.parent != directory_of(data_dir, head.job.name, uuid):
            raise _Damaged("it is the record of another build")
        if not (path.parent / console.FILE_NAME).exists():
            _write_console(path.parent, lines)
    return Build(
        uuid=uuid,
        job=head.job,
        started=end.started,
        losses=0,
        state="finished",
        finished=end.finished,
        result=end.result,
    )


def _write_console(directory: Path, lines: Reversal) -> None:
    part = directory / f"{console.FILE_NAME}.part"
    with part.open("wb") as file:
        file.writelines(lines.pieces())
        file.flush()
        os.fsync(file.fileno())
    part.rename(directory / console.FILE_NAME)
    sync_directory(directory)
