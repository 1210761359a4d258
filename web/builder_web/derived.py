"""What is read once out of the files of builds, and kept in the database.

The first who needs it makes it: whoever works after an upload, or a page that shows a build of another program.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress

import sqlalchemy as sa
import trio

from builder.runtime.database import StoreError
from builder_web.console_index import ConsoleIndex
from builder_web.directory import DataDirectory
from builder_web.errors import UnreadableOpamFile
from builder_web.opam.switch import Package, read_switch
from builder_web.opam.syntax import MAX_SIZE
from builder_web.store import builds, consoles, packages
from builder_web.store.records import Build
from builder_web.store.store import Store

log = logging.getLogger(__name__)

MAX_PACKAGES = 5000
"""Packages of one switch that can be searched for; opam's repository has about as many."""

LARGE = 16 * 1024 * 1024
"""Bytes of a console from which on it is read before somebody asks for it: fewer are read while a page is made."""

_AT_ONCE = 100
_LOOKED_AT = 1000  # consoles whose sizes are found out together

_making = trio.Lock()  # a console of a gigabyte is read once, however many ask for it meanwhile


async def console_of(store: Store, directory: DataDirectory, build: Build) -> ConsoleIndex:
    """Return the index of a build's console. Raises OSError and StoreError."""
    kept = await store.ask(consoles.find, build.id)
    if kept is not None:
        return kept
    async with _making:
        kept = await store.ask(consoles.find, build.id)
        if kept is not None:
            return kept
        path = directory.below(build.console)
        index = await trio.to_thread.run_sync(ConsoleIndex.of, path, abandon_on_cancel=True)
        try:
            await store.database.write(lambda connection: consoles.keep(connection, build.id, index))
        except StoreError as error:
            log.warning("the index of a console is not kept: %s", error)
        return index


async def note_switch(store: Store, directory: DataDirectory, digest: bytes) -> None:
    """Have the packages of a switch searched, unless they are known. Raises StoreError."""
    if await store.ask(packages.is_read, digest):
        return
    found = await trio.to_thread.run_sync(_packages, directory, digest)

    def keep(connection: sa.Connection) -> None:
        packages.keep(connection, digest, found)

    await store.database.write(keep)


async def note_switches(store: Store, directory: DataDirectory) -> None:
    """Have the packages of all switches searched that are not known yet, such as those of another program's builds."""
    try:
        while found := await store.ask(packages.unread, count=_AT_ONCE):
            for digest in found:
                await note_switch(store, directory, digest)
    except StoreError as error:
        log.error("the packages of some builds can't be searched until the next start: %s", error)


async def note_consoles(store: Store, directory: DataDirectory) -> None:
    """Have the lines of large consoles known that another program has received."""
    last = 0
    try:
        while found := await store.ask(consoles.unknown, after=last, count=_LOOKED_AT):
            last = max(found)
            large = await trio.to_thread.run_sync(_large, directory, found)
            for build in (await store.ask(builds.find_all, large)).values():
                with suppress(OSError):  # the page of this console says so
                    await console_of(store, directory, build)
    except StoreError as error:
        log.error("the first page of some consoles takes long: %s", error)


def _large(directory: DataDirectory, paths: Mapping[int, str]) -> list[int]:
    found = []
    for build_id, path in paths.items():
        with suppress(OSError):
            if directory.below(path).stat().st_size >= LARGE:
                found.append(build_id)
    return found


def _packages(directory: DataDirectory, digest: bytes) -> list[Package]:
    """Return the packages of a switch; none if it can't be read: it would be tried again and again."""
    try:
        with directory.content(digest).open("rb") as file:
            found = read_switch(file.read(MAX_SIZE + 1)).installed
    except (OSError, UnreadableOpamFile):
        return []
    return list(found.values())[:MAX_PACKAGES]
