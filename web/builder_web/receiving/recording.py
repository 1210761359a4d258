"""A build that was received is put into its place and recorded, or taken back."""

import logging
import shutil
from collections.abc import Callable
from functools import partial

import sqlalchemy as sa
import trio
from attrs import define

from builder.errors import BuilderError
from builder.runtime import grouping
from builder_web import removing
from builder_web.directory import DataDirectory
from builder_web.receiving import staging
from builder_web.receiving.staging import Staging
from builder_web.store import uploads, users
from builder_web.store.records import NewBuild, User
from builder_web.store.store import Store

log = logging.getLogger(__name__)


class Duplicate(BuilderError):
    """A build with that uuid exists."""


class Forbidden(BuilderError):
    """The user may not upload builds of that job, or is no longer there."""


@define
class Recorder:
    """Records what was received; ``then`` is told of each build once it is recorded."""

    directory: DataDirectory
    store: Store
    then: Callable[[NewBuild], None]
    recorded: int = 0
    """How many builds, since the start."""

    async def check(self, job: str, uuid: str, user: User) -> None:
        """Raise Forbidden or Duplicate if a build can't be recorded, as far as that is known now. Raises StoreError."""
        await self.store.ask(_check, job, uuid, user)

    async def record(self, staged: Staging, new: NewBuild, user: User) -> None:
        """Record a build. Raises Forbidden, Duplicate, OSError and StoreError; it is to be discarded then."""

        def step(connection: sa.Connection) -> None:
            _check(connection, new.job, new.uuid, user)  # much may have changed while it arrived
            grouping.sync_before_commit(connection, staged.place())
            uploads.record(connection, new, user.id)

        await self.store.database.write(step)
        self.recorded += 1
        self.then(new)
        await trio.to_thread.run_sync(_remove, staged)

    async def discard(self, staged: Staging) -> None:
        """Take back what was staged. What can't be is taken back at the next start."""
        with trio.CancelScope(shield=True):
            try:
                await self.store.database.write(partial(_take_back, staged))
            except (BuilderError, OSError) as error:
                log.error("what was uploaded in part stays in %s until the next start: %s", staged.path, error)

    async def recover(self) -> None:
        """Take back what was half received when this program ended, and finish what was half removed.

        Raises OSError and StoreError.
        """
        await self.store.database.write(partial(removing.remove_files, directory=self.directory))
        count = await self.store.database.write(partial(_recover, self.directory))
        if count:
            log.info("took back %d uploads that were not recorded", count)


def _check(connection: sa.Connection, job: str, uuid: str, user: User) -> None:
    known = users.find(connection, user.username)
    if known is None or known.id != user.id or not users.may_upload(connection, known, job):
        raise Forbidden(f"{user.username} may not upload builds of {job}")
    other = uploads.find_job_of(connection, uuid)
    if other is not None:
        raise Duplicate(f"Build with same uuid exists: {other}({uuid})")


def _is_recorded(connection: sa.Connection, uuid: str) -> bool:
    return uploads.find_job_of(connection, uuid) is not None


def _take_back(staged: Staging, connection: sa.Connection) -> None:
    if not staged.path.exists():
        return
    if _is_recorded(connection, staged.uuid):  # by another upload of the same build: its files are in their places
        staged.remove()
    else:
        staged.take_back(is_used=partial(uploads.has_content, connection))


def _recover(directory: DataDirectory, connection: sa.Connection) -> int:
    return staging.recover(
        directory,
        is_recorded=partial(_is_recorded, connection),
        is_used=partial(uploads.has_content, connection),
    )


def _remove(staged: Staging) -> None:
    shutil.rmtree(staged.path, ignore_errors=True)  # the next start removes what is left
