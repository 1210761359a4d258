"""Signs what finished builds were: an envelope beside each record, written once the result is recorded.

The database says which builds are still to be signed, so nothing is forgotten by a crash, and a fault of a key or of the disk
holds up no result: it is tried again. What is signed is made of what the database has, the hashes of artifacts among it,
which the server has taken as they came.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import trio
from attrs import define, field

from builder.errors import BuilderError
from builder.model import Instant
from builder.provenance import FILE_NAME, KeysUnusable
from builder.reasons import reason_of
from builder.runtime.changes import Change
from builder.runtime.syncing import sync_together
from builder_server.results import directory_of
from builder_server.store import Signable, Store, StoreError

if TYPE_CHECKING:
    from builder.provenance.keys import SigningKey

logger = logging.getLogger(__name__)

RETRY = 10.0
"""Seconds until what could not be signed is tried again."""

ARTIFACTS = 10_000
"""Artifacts that are read from the database at once."""

_UNFINISHED = f"{FILE_NAME}.part"


class NotSigned(BuilderError):
    """A build is recorded, and not signed yet: something is wrong with the keys, or with the disk."""


@define(eq=False, kw_only=True)
class Signer:
    """Signs the builds of a server. ``builder_id`` is the URI that it is known by; ``now`` is the wall clock."""

    store: Store
    data_dir: Path
    builder_id: str
    now: Callable[[], Instant]
    _work: Change = field(factory=Change)
    _turn: trio.Lock = field(factory=trio.Lock)
    _failed: set[UUID] = field(factory=set)
    _trouble: str = ""

    def wake(self) -> None:
        """Say that a build was finished."""
        self._work.announce()

    async def run(self) -> None:
        """Sign what is to be signed, for ever."""
        while True:
            work = self._work.next
            try:
                found = await self.store.unsigned(self._failed)
                if found:
                    await self._sign(found)
                    self._note_trouble("")
                    continue
            except (OSError, BuilderError) as error:
                self._note_trouble(reason_of(error))
            with trio.move_on_after(RETRY if self._trouble or self._failed else float("inf")) as waiting:
                await work.wait()
            if waiting.cancelled_caught:
                self._failed.clear()

    def _note_trouble(self, trouble: str) -> None:
        """Say it once, and once that it is over."""
        if trouble and trouble != self._trouble:
            logger.error("finished builds can't be signed, trying again: %s", trouble)
        elif self._trouble and not trouble:
            logger.info("finished builds are signed again")
        self._trouble = trouble

    async def path(self, uuid: UUID, name: str) -> Path | None:
        """Return where the envelope of a build of that job is, made now if it is still to be; None if there is to be none.

        Raises NotSigned, and OSError and StoreError.
        """
        path = directory_of(self.data_dir, name, uuid) / FILE_NAME
        is_there = partial(trio.to_thread.run_sync, path.exists)
        if await is_there():
            return path
        if await self.store.signable(uuid) is None:
            return None
        try:
            await self._sign([uuid])
        except KeysUnusable as error:
            raise NotSigned(f"{uuid} is not signed yet: {error}") from error
        return path if await is_there() else None  # else nothing is left of the build

    async def envelope(self, uuid: UUID, name: str) -> bytes | None:
        """Return the envelope of a build, as ``path`` does."""
        path = await self.path(uuid, name)
        return None if path is None else await trio.to_thread.run_sync(path.read_bytes)

    async def _sign(self, uuids: Sequence[UUID]) -> None:
        """Sign builds, make the envelopes durable together, and note it."""
        async with self._turn:
            now = self.now()
            keys = await trio.to_thread.run_sync(_load, self.data_dir, now)
            written: dict[UUID, Path] = {}
            gone: list[UUID] = []
            for uuid in uuids:
                try:
                    if (build := await self.store.signable(uuid)) is not None:
                        written[uuid] = await self._write(build, keys, now)
                except FileNotFoundError:  # its directory was removed: what it was, nobody can ask any more
                    gone.append(uuid)
                except (OSError, StoreError):
                    raise
                except Exception:  # the others must not wait for it
                    logger.exception("build %s can't be signed", uuid)
                    self._failed.add(uuid)
            await trio.to_thread.run_sync(_publish, list(written.values()))
            await self.store.note_signed(written.keys(), gone)

    async def _write(self, build: Signable, keys: "Sequence[SigningKey]", now: Instant) -> Path:
        """Write the envelope under another name, and return the directory of the build."""
        from builder_server import statements

        subjects = statements.Subjects()
        behind = ""
        while page := await self.store.list_artifacts(build.uuid, behind, ARTIFACTS):
            await trio.to_thread.run_sync(statements.add, subjects, page)
            behind = page[-1].path
        directory = directory_of(self.data_dir, build.name, build.uuid)

        def write() -> None:
            signed = statements.sign(build, subjects, keys, builder_id=self.builder_id, now=now)
            (directory / _UNFINISHED).write_bytes(signed)

        await trio.to_thread.run_sync(write)
        return directory


def _load(data_dir: Path, now: Instant) -> "list[SigningKey]":
    """Return the keys that sign now. What signs is loaded with the first of them: no start waits for that. Raises BuilderError."""
    from builder_server import statements

    return statements.Keyring(data_dir).signing(now)


def _publish(directories: Sequence[Path]) -> None:
    """Give envelopes their names once they are durable."""
    sync_together(directory / _UNFINISHED for directory in directories)
    for directory in directories:
        (directory / _UNFINISHED).rename(directory / FILE_NAME)
    sync_together(directories)
