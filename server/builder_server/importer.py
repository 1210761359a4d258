"""Takes over the ``state`` file of the original, once."""

import logging
from pathlib import Path

import trio
from attrs import evolve

from builder import codec
from builder.errors import BuilderError, InvalidName, ProtocolError
from builder.model import DroppedPlatform, OrbBuildJob, Queue, ScheduleItem, ScriptJob, StateItem, printable
from builder.runtime.files import sync_directory
from builder_server.names import IMPORTED_STATE, STATE, check_job_name, check_package, check_platform_name
from builder_server.store import Store

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
        logger.warning("an entry of the imported state is left out: %s", printable(str(error)))
        return False
    return True
