"""What is half done: the files of an upload until its build is recorded, in a directory of its own below ``_staging``.

    UUID.XXXX/job           the name of its job
    UUID.XXXX/build/        script.txt and console.txt, which become JOB/UUID
    UUID.XXXX/contents/     a file for each content, by its SHA-256

Contents are linked into their places and not moved: what a crash leaves here says what it may have left there. So a
staging directory is removed last, and whoever finds one takes back what it names unless its build was recorded.

Placing and taking back are steps of the database's writer: while one runs, nobody else places, records or removes.
"""

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

from attrs import frozen

from builder.errors import InvalidName
from builder.model import raw, text
from builder.runtime import files, syncing
from builder_web.directory import DataDirectory, check_job

log = logging.getLogger(__name__)

_UUID_LENGTH = 36
_NAME = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.[0-9a-f]+)?"
)  # without the random part it is the original's


@frozen(kw_only=True)
class Content:
    """A content that is staged, by its SHA-256; ``size`` is in bytes."""

    digest: bytes
    size: int


class ContentWriter:
    """Hashes a content while it is written. Everything raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "new"
        self._file = self._path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Give it up."""
        self._file.close()

    def finish(self) -> Content:
        """Give what was written its name."""
        content = Content(digest=self._hash.digest(), size=self._size)
        self._file.close()
        self._path.replace(self._directory / content.digest.hex())
        return content


@frozen
class Staging:
    """The directory of one upload. Everything raises OSError."""

    directory: DataDirectory
    path: Path

    @classmethod
    def begin(cls, directory: DataDirectory, *, job: str, uuid: str) -> Self:
        """Make a directory for the files of a build. Others may upload the same build meanwhile: it bears a random part."""
        path = directory.staging / f"{uuid}.{secrets.token_hex(4)}"
        try:
            for made in (directory.staging, path, path / "build", path / "contents"):
                made.mkdir(exist_ok=made == directory.staging)
            (path / "job").write_bytes(raw(job))
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(directory, path)

    @property
    def uuid(self) -> str:
        """The uuid of the build."""
        return self.path.name[:_UUID_LENGTH]

    @property
    def script(self) -> Path:
        """Where the script is written."""
        return self.path / "build" / "script.txt"

    @property
    def console(self) -> Path:
        """Where the console is written."""
        return self.path / "build" / "console.txt"

    def content(self, digest: bytes) -> Path:
        """Return where a content is that was written here."""
        return self.path / "contents" / digest.hex()

    def new_content(self) -> ContentWriter:
        """Return what takes the next content."""
        return ContentWriter(self.path / "contents")

    @property
    def target(self) -> Path | None:
        """Where the directory of the build goes, or None if nothing says for which job it is: then nothing was placed."""
        try:
            job = text((self.path / "job").read_bytes())
            check_job(job)
        except (FileNotFoundError, InvalidName):
            return None
        return self.directory.build(job, self.uuid)

    def finish(self) -> None:
        """Make all files durable: none is written any more."""
        syncing.sync_together((self.script, self.console, self.script.parent, *(self.path / "contents").iterdir()))

    def place(self) -> set[Path]:
        """Put all files into their places, and return the directories that are to be synced then. It may be done again."""
        parents = set()
        for staged in sorted((self.path / "contents").iterdir()):
            target = self.directory.content(bytes.fromhex(staged.name))
            if not target.exists():
                self.directory.make_parents(target)
                os.link(staged, target)
                parents.add(target.parent)
        place, build = self.target, self.path / "build"
        if build.exists():
            assert place
            files.remove_tree(place)  # no row names it: of a build that was removed, or by another program
            self.directory.make_parents(place)
            build.rename(place)
            parents.add(place.parent)
        return parents

    def remove(self) -> None:
        """Remove the directory: the build was recorded."""
        shutil.rmtree(self.path)

    def take_back(self, *, is_used: Callable[[bytes], bool]) -> None:
        """Undo what was placed, and remove the directory. ``is_used`` says whether a build has a content."""
        contents = self.path / "contents"
        for staged in contents.iterdir() if contents.is_dir() else ():
            if len(staged.name) == 64 and not is_used(digest := bytes.fromhex(staged.name)):
                self.directory.content(digest).unlink(missing_ok=True)
        if (target := self.target) is not None:
            files.remove_tree(target)
            files.remove_if_empty(target.parent)
        self.remove()


def recover(directory: DataDirectory, *, is_recorded: Callable[[str], bool], is_used: Callable[[bytes], bool]) -> int:
    """Take back what was half done, and return the number of uploads whose builds were not recorded. Raises OSError."""
    count = 0
    for path in sorted(directory.staging.iterdir()) if directory.staging.is_dir() else ():
        if not _NAME.fullmatch(path.name) or not path.is_dir():
            log.warning("%s is no upload, and stays", path)
            continue
        staging = Staging(directory, path)
        if is_recorded(staging.uuid):
            staging.remove()
        else:
            staging.take_back(is_used=is_used)
            count += 1
    return count
