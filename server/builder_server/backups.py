"""Backups: a tar archive with the database first, as it was at one moment, and then what builds have written.

The database comes first, so what follows has at least all that it names, but for what was removed meanwhile. What a build
that still runs has written comes along as far as it is: after a restore its worker may come back to it, or it is put back.
A restore makes everything durable before the database gets its name: a directory with a database is whole.
"""

import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from builder import provenance
from builder.errors import BuilderError, InvalidName
from builder.model import printable
from builder.reasons import reason_of
from builder.runtime import sqlite
from builder.runtime.files import sync_directory
from builder_server import console, results
from builder_server.names import DATABASE, KEY_SUFFIX, KEYS, check_job_name
from builder_server.served import Served, is_elsewhere

RESTORING = f"{DATABASE}.part"
"""The database of a restore that is not complete."""

FILES = (console.FILE_NAME, results.FILE_NAME, provenance.FILE_NAME)
"""What a build has."""

COPY_SIZE = 1024 * 1024
"""Bytes that are copied at once."""

_MODE = 0o600

_KEY = re.compile(rf"{KEYS}/[0-9a-f]{{64}}{re.escape(KEY_SUFFIX)}", re.ASCII)


class BackupFailed(BuilderError):
    """A backup can't be made, or what was brought is none."""

    exit_code = 7


def check_inside(served: Served) -> None:
    """Raise BackupFailed unless the database of a server is in its directory."""
    if served.database is not None or is_elsewhere(served.directory):
        raise BackupFailed(
            f"the database of {served.directory} is in PostgreSQL: save it with pg_dump and then the files, and bring back both, "
            "it with pg_restore"
        )


def write(directory: Path, target: Path, *, only_database: bool = False, with_keys: bool = False) -> None:
    """Write a backup of a server's directory; ``-`` is standard output. Raises BackupFailed and StoreError.

    Without ``with_keys`` whoever gets hold of it can't sign in the name of the server.
    """
    try:
        with _writing(target) as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            with tempfile.TemporaryDirectory(dir=None if str(target) == "-" else target.parent) as place:
                copy = Path(place, DATABASE)
                sqlite.copy(directory / DATABASE, copy)
                _add(archive, copy, Path(DATABASE))
            for path in _keys(directory) if with_keys else ():
                _add(archive, path, path.relative_to(directory))
            for path in () if only_database else _files(directory):
                with suppress(FileNotFoundError):  # an upload, or --keep, has removed it meanwhile
                    _add(archive, path, path.relative_to(directory))
                _forget(archive)
    except OSError as error:
        raise BackupFailed(f"can't write the backup {target}: {reason_of(error)}; nothing was changed") from error


def read(directory: Path, source: Path) -> None:
    """Bring back what a backup has into a directory that has no database; ``-`` is standard input. Raises BackupFailed."""
    database = directory / DATABASE
    if database.exists():
        raise BackupFailed(f"there is a database in {directory}: move it away, or name another directory with --dir")
    whole = directory / RESTORING
    try:
        with ExitStack() as opened:
            file = sys.stdin.buffer if str(source) == "-" else opened.enter_context(source.open("rb"))
            archive = opened.enter_context(tarfile.open(fileobj=file, mode="r|*"))
            first = archive.next()
            if first is None or first.name != DATABASE:
                raise BackupFailed(f"{source} is no backup of a builder-server: it does not begin with its database")
            _extract(archive, first, whole)
            while (member := archive.next()) is not None:
                _forget(archive)
                place = directory / _place(member)
                place.parent.mkdir(mode=0o700 if place.parent.name == KEYS else 0o777, parents=True, exist_ok=True)
                _extract(archive, member, place)
        sqlite.check(whole)
        os.sync()  # of all files at once, since there may be a million
        whole.rename(database)
        sync_directory(directory)
    except tarfile.TarError as error:
        raise BackupFailed(f"{source} is no backup of a builder-server, or damaged: {error}") from error
    except OSError as error:
        raise BackupFailed(
            f"can't restore {source} to {directory}: {reason_of(error)}; do it again once that is mended"
        ) from error


def check_whole(directory: Path) -> None:
    """Raise BackupFailed if a restore to a directory was interrupted, or its database was emptied: SQLite would begin anew."""
    if (directory / RESTORING).exists():
        raise BackupFailed(
            f"a restore to {directory} was interrupted: do it again, or remove {RESTORING} to do without"
        )
    database = directory / DATABASE
    if database.is_file() and not database.stat().st_size and any(_files(directory)):
        raise BackupFailed(
            f"{database} is empty, and there are builds beside it: move it away, and bring back a backup with 'restore', or "
            "begin with a new one"
        )


@contextmanager
def _writing(target: Path) -> Iterator[BinaryIO]:
    """Give a file that gets its name, and replaces what has it, once it is whole and durable."""
    if str(target) == "-":
        if sys.stdout.isatty():
            raise BackupFailed("standard output is a terminal: name a file")
        yield sys.stdout.buffer
        return
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with _create(part, os.O_EXCL) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        sync_directory(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _keys(directory: Path) -> list[Path]:
    from builder_server import keyring

    return keyring.files(directory)


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files of all builds."""
    for job in _directories(directory):
        for build in _directories(job):
            if _is_uuid(build.name):
                yield from (path for name in FILES if (path := build / name).is_file())


def _directories(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(path) as entries:  # --keep removes them
        yield from (
            Path(entry)
            for entry in sorted(entries, key=lambda entry: entry.name)
            if entry.is_dir(follow_symlinks=False)
        )


def _add(archive: tarfile.TarFile, path: Path, name: Path) -> None:
    with path.open("rb") as file:
        member = archive.gettarinfo(arcname=str(name), fileobj=file)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        archive.addfile(member, file)  # as much as there was: a console may grow meanwhile


def _forget(archive: tarfile.TarFile) -> None:
    """Have it hold nothing of what it is done with: there may be a million files."""
    archive.members.clear()  # type: ignore[attr-defined]  # the standard library's own, and what its documentation names


def _place(member: tarfile.TarInfo) -> Path:
    """Return where a file of a build belongs, or a key. Raises BackupFailed for what is none."""
    if member.isfile() and _KEY.fullmatch(member.name):
        return Path(member.name)
    try:
        job, build, name = member.name.split("/")
        check_job_name(job)
        if member.isfile() and _is_uuid(build) and name in FILES:
            return Path(job, build, name)
    except (ValueError, InvalidName):
        pass
    raise BackupFailed(f"{printable(member.name[:200])!r} is in no backup of a builder-server")


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise BackupFailed(f"{printable(member.name[:200])!r} of the backup is no file")
    with _create(place, os.O_TRUNC) as file:
        shutil.copyfileobj(content, file, COPY_SIZE)


def _create(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, _MODE), "wb")
