"""What should be true of a data directory: each fault is a line of text."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from builder.model import printable
from builder_web.directory import DataDirectory
from builder_web.store import builds, uploads
from builder_web.store.schema import artifact, build

_PIECE = 1024 * 1024
_INPUTS = ("opam-switch", "build-environment", "system-packages")
_CACHED = re.compile(r"[0-9a-f]{64}\.html")


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


def data_directory(connection: sa.Connection, directory: DataDirectory) -> Iterator[str]:
    """Yield what is missing, damaged, or named by nothing."""
    known = set()
    for one in builds.all_builds(connection):
        for name in (one.script, one.console):
            known.add(name)
            try:
                directory.below(name).stat()
            except OSError as error:
                yield f"build {one.uuid}: {printable(name)}: {error.strerror or 'it leads out of the directory'}"
    query = sa.select(artifact.c.sha256, artifact.c.size).distinct().order_by(artifact.c.sha256)
    for row in connection.execute(query):
        path = directory.content(row.sha256)
        known.add(str(path.relative_to(directory.root)))
        try:
            size, digest = _read(path)
        except OSError as error:
            yield f"artifact {row.sha256.hex()}: {error.strerror}"
            continue
        if digest != row.sha256:
            yield f"artifact {row.sha256.hex()}: its content has the SHA-256 {digest.hex()}"
        elif size != row.size:
            yield f"artifact {row.sha256.hex()}: it has {size} bytes instead of {row.size}"
    mains = sa.select(build.c.uuid).where(
        build.c.main_binary.is_not(None),
        ~sa.exists().where(artifact.c.id == build.c.main_binary, artifact.c.build == build.c.id),
    )
    for uuid in connection.scalars(mains):
        yield f"build {uuid}: the main binary is none of its artifacts"
    for found in _files(directory):
        if found not in known:
            yield f"{printable(found)}: no build has it"


def _files(directory: DataDirectory) -> Iterator[str]:
    for folder, folders, names in os.walk(directory.root):
        if Path(folder) == directory.root:
            folders[:] = [name for name in folders if name not in ("_cache", "_staging")]
            continue
        for name in names:
            yield str((Path(folder) / name).relative_to(directory.root))


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
