"""The data directory: what is where, in the layout of the original.

Nothing in it is named by an upload but the directories of jobs, whose names ``check_job`` has seen.
"""

import os
import re
from pathlib import Path

from attrs import frozen

from builder.errors import InvalidName
from builder.model import MAX_NAME_BYTES, check_name, printable, raw
from builder.runtime import files

_RESERVED = frozenset({"_artifacts", "_staging", "_cache"})
_DATABASE = "builder.sqlite3"
_CONTENT = re.compile("_artifacts/[0-9a-f]{2}/([0-9a-f]{64})")


def check_job(name: str) -> None:
    """Raise InvalidName unless a job of that name can have a directory."""
    check_name(name, what="job name", reserved=_RESERVED, longest=MAX_NAME_BYTES)
    if len(raw(name)) > MAX_NAME_BYTES:
        raise InvalidName(f"invalid job name: it has more than {MAX_NAME_BYTES} bytes")
    if name.startswith(_DATABASE):
        raise InvalidName(f"invalid job name: {printable(name)} is a file of the database")


def script_path(job: str, uuid: str) -> str:
    """Return where the script of a build is, as the database says it: relative to the data directory."""
    return f"{job}/{uuid}/script.txt"


def console_path(job: str, uuid: str) -> str:
    """Return where the console of a build is, as the database says it: relative to the data directory."""
    return f"{job}/{uuid}/console.txt"


def content_path(digest: bytes) -> str:
    """Return where the content with that SHA-256 is, relative to the data directory."""
    name = digest.hex()
    return f"_artifacts/{name[:2]}/{name}"


def digest_of(path: str) -> bytes | None:
    """Return the SHA-256 of the content that is at a path relative to the data directory; None if none is there."""
    found = _CONTENT.fullmatch(path)
    return bytes.fromhex(found[1]) if found else None


@frozen
class DataDirectory:
    """A data directory by its path."""

    root: Path

    @property
    def database(self) -> Path:
        """The database."""
        return self.root / _DATABASE

    @property
    def staging(self) -> Path:
        """Where uploads are while they arrive, a directory each."""
        return self.root / "_staging"

    @property
    def cache(self) -> Path:
        """Where drawings are that hooks have made, or this program."""
        return self.root / "_cache"

    def content(self, digest: bytes) -> Path:
        """Return where the content with that SHA-256 is."""
        return self.root / content_path(digest)

    def build(self, job: str, uuid: str) -> Path:
        """Return the directory of a build."""
        return self.root / job / uuid

    def below(self, path: str) -> Path:
        """Return the file that the database names by a path relative to the directory. Raises FileNotFoundError.

        A database is no better than its data: a path that leads elsewhere names nothing.
        """
        found = Path(os.path.normpath(self.root / path))
        if not found.is_relative_to(self.root) or "\0" in path:
            raise FileNotFoundError(path)
        return found

    def make_parents(self, path: Path) -> None:
        """Make the directories above a path, durably. Raises OSError."""
        if path.parent.exists():
            return
        missing = [parent for parent in path.parents if parent.is_relative_to(self.root) and not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            files.sync_directory(parent.parent)
