"""What should be true of a data directory: each fault is a line of text.

builder-web may run meanwhile: whoever calls looks twice, the second time while nobody can write, and takes for a fault what
was one both times. What is hashed is not hashed twice: a content never changes.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from builder.model import printable
from builder_web.directory import DataDirectory, digest_of
from builder_web.store import builds, removal, uploads
from builder_web.store.schema import artifact, build

_PIECE = 1024 * 1024
_INPUTS = ("opam-switch", "build-environment", "system-packages")
_CACHED = re.compile(r"[0-9a-f]{64}\.html")
_NOT_NAMED = ("_cache", "_staging")


def input_ids(connection: sa.Connection) -> Iterator[str]:
    """Yield the builds whose input id is not that of their input."""
    for one in builds.all_builds(connection):
        digests = {file.path: file.digest for file in builds.artifacts(connection, one.id) if file.path in _INPUTS}
        wanted = None
        if len(digests) == len(_INPUTS):
            wanted = hashlib.sha256(b"".join(digests[path] for path in _INPUTS)).digest()
        if one.input_id != wanted:
            yield f"build {one.uuid}: the input id is {_shown(one.input_id)} instead of {_shown(wanted)}"


def _shown(digest: bytes | None) -> str:
    return digest.hex() if digest is not None else "none"


class DataDirectoryCheck:
    """Finds what is missing, damaged, or named by nothing in a data directory."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._read: dict[bytes, tuple[int, bytes]] = {}

    def faults(self, connection: sa.Connection) -> Iterator[str]:
        """Yield all faults."""
        yield from self._builds(connection)
        yield from self._contents(connection)
        yield from _main_binaries(connection)
        yield from self._strays(connection)

    def _builds(self, connection: sa.Connection) -> Iterator[str]:
        for one in builds.all_builds(connection):
            for name in (one.script, one.console):
                try:
                    self._directory.below(name).stat()
                except OSError as error:
                    yield f"build {one.uuid}: {printable(name)}: {error.strerror or 'it leads out of the directory'}"

    def _contents(self, connection: sa.Connection) -> Iterator[str]:
        query = sa.select(artifact.c.sha256, artifact.c.size).distinct().order_by(artifact.c.sha256)
        for row in connection.execute(query):
            name = f"artifact {row.sha256.hex()}"
            try:
                size, digest = self._content(row.sha256)
            except OSError as error:
                yield f"{name}: {error.strerror}"
                continue
            if digest != row.sha256:
                yield f"{name}: its content has the SHA-256 {digest.hex()}"
            elif size != row.size:
                yield f"{name}: it has {size} bytes instead of {row.size}"

    def _content(self, digest: bytes) -> tuple[int, bytes]:
        path = self._directory.content(digest)
        path.stat()  # it may be gone since it was read
        if digest not in self._read:
            self._read[digest] = _read(path)
        return self._read[digest]

    def _strays(self, connection: sa.Connection) -> Iterator[str]:
        known = {name for one in builds.all_builds(connection) for name in (one.script, one.console)}
        leaving = tuple(f"{path}/" for path in removal.pending(connection))
        for found in self._files():
            digest = digest_of(found)
            is_named = found in known if digest is None else uploads.has_content(connection, digest)
            if not is_named and not f"{found}/".startswith(leaving):
                yield f"{printable(found)}: no build has it"

    def _files(self) -> Iterator[str]:
        root = self._directory.root
        for folder, folders, names in os.walk(root):
            if Path(folder) == root:
                folders[:] = sorted(name for name in folders if name not in _NOT_NAMED)
                continue
            folders.sort()
            for name in sorted(names):
                yield str((Path(folder) / name).relative_to(root))


def _main_binaries(connection: sa.Connection) -> Iterator[str]:
    query = sa.select(build.c.uuid).where(
        build.c.main_binary.is_not(None),
        ~sa.exists().where(artifact.c.id == build.c.main_binary, artifact.c.build == build.c.id),
    )
    for uuid in connection.scalars(query):
        yield f"build {uuid}: the main binary is none of its artifacts"


def _read(path: Path) -> tuple[int, bytes]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            size += len(data)
            digest.update(data)
    return size, digest.digest()


def cache_directory(connection: sa.Connection, directory: DataDirectory) -> Iterator[str]:
    """Yield cached drawings whose input is no artifact."""
    if not directory.cache.is_dir():
        return
    for folder in sorted(directory.cache.iterdir()):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = path.relative_to(directory.root)
            if not _CACHED.fullmatch(path.name):
                yield f"{printable(str(name))}: it is no drawing"
            elif not uploads.has_content(connection, bytes.fromhex(path.stem)):
                yield f"{name}: no build has the artifact that it was made of"
