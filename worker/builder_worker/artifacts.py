"""Artifacts: the files that a job left, found and read without trusting anything in its directory.

Rules kept here:
1. Only regular files, by what ``fstat`` says after they were opened relative to their directory without following
   links; nothing that blocks, no other file system, no foreign file that was linked in.
2. The order is that of the paths' bytes; nothing depends on the order in which a file system lists names.
3. Nothing of a content is held but the piece being sent. Counts have a limit.
4. A file is sent with the size it had when it was found. If it is not the same file any more, ``TreeChanged`` is
   raised before its last byte is sent: the frame then stays incomplete, which no receiver takes for a whole.
"""

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from attrs import field, frozen, mutable

from builder.errors import BuilderError, InvalidName
from builder.execution import artifact_head, artifacts_length
from builder.messages import JobFinished
from builder.model import check_artifact_path, printable, text
from builder.sizes import format_size
from builder_worker.trees import Cursor, Identity, TreeChanged, identity

MAX_ARTIFACTS = 100_000
"""Most artifacts where no other limit is set: their list takes some 300 bytes each."""

MAX_ENTRIES = 500_000
"""Most files and directories, artifacts or not, that are looked at: some seconds' work."""

MAX_NAMES = 64 * 1024 * 1024
"""Bytes of the names that are held at once, since each may have 4 KiB."""

MAX_TOTAL = JobFinished.max_size - 64 * 1024
"""Bytes of all artifacts together with which the message is still accepted."""

MAX_REPORTED = 100
"""Files left out that the console names; the others are counted."""

CHUNK = 256 * 1024
"""Bytes read and sent at once."""


class TooMuchLeft(BuilderError):
    """What a job left is more than its limits allow."""


@frozen(kw_only=True)
class Rules:
    """What is collected. Sizes in bytes."""

    dotfiles: bool = False
    max_bytes: int | None = None
    max_artifacts: int | None = None


@frozen(kw_only=True)
class File:
    """An artifact that was found. ``mtime`` in nanoseconds since 1970."""

    path: bytes
    size: int
    mtime: int
    identity: Identity

    def is_still(self, status: os.stat_result) -> bool:
        """Return whether an open file is this one, unchanged."""
        return (self.size, self.mtime, self.identity) == (status.st_size, status.st_mtime_ns, identity(status))


@frozen(kw_only=True)
class Collection:
    """The artifacts of a job, in order. ``remarks`` are what the console should say about others."""

    work: Path = Path()
    files: tuple[File, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(file.size for file in self.files)

    @property
    def length(self) -> int:
        """Bytes of all that ``chunks`` returns."""
        return artifacts_length((text(file.path), file.size) for file in self.files)

    def summary(self) -> str:
        """Return such as "3 artifacts, 12.4 MiB"."""
        count = len(self.files)
        return f"{count} artifact{'' if count == 1 else 's'}, {format_size(self.size)}"

    def chunks(self) -> Generator[bytes, None, None]:
        """Return the encoded artifacts in pieces of about CHUNK bytes. Raises TreeChanged and OSError."""
        pending = bytearray()
        with closing(self.contents()) as files:
            for file, contents in files:
                pending += artifact_head(text(file.path), file.size)
                for data in contents:
                    pending += data
                    if len(pending) >= CHUNK:
                        yield bytes(pending)
                        pending.clear()
        if pending:
            yield bytes(pending)

    def contents(self) -> Generator[tuple[File, Iterator[bytes]], None, None]:
        """Return each file and the pieces of its content, to be read before the next one's. Raises like ``chunks``."""
        if not self.files:
            return
        with Cursor(self.work) as cursor:
            for file in self.files:
                *directories, name = file.path.split(b"/")
                cursor.move(directories)
                with cursor.open_file(name) as fd:
                    yield file, _contents(fd, file)


def _contents(fd: int, file: File) -> Iterator[bytes]:
    left = file.size
    while True:
        data = os.read(fd, min(CHUNK, left))
        left -= len(data)
        if left and data:
            yield data
            continue
        if left or not file.is_still(os.fstat(fd)):
            raise TreeChanged(f"{printable(text(file.path))} changed while it was read")
        yield data
        return


def collect(work: Path, *, script_name: str, rules: Rules, owners: range | None = None) -> Collection:
    """Find the artifacts below a job's work directory, while none of its processes lives.

    ``owners`` are the users who are the job's alone; None is the one who owns the directory.

    Raises TooMuchLeft, and OSError or TreeChanged where the directory itself is not what it was.
    """
    with Cursor(work) as cursor:
        own = range(cursor.root.st_uid, cursor.root.st_uid + 1) if owners is None else owners
        found = _Found(rules=rules, script=os.fsencode(script_name), owners=own)
        levels = [_look_at(cursor, found)]  # of each directory from the root to here, the ones below it to visit
        while levels:
            if levels[-1]:
                name = levels[-1].pop()
                try:
                    cursor.down(name)
                except OSError as error:
                    found.leave_out(cursor.path_of(name), error.strerror or "unreadable")
                else:
                    levels.append(_look_at(cursor, found))
            else:
                levels.pop()
                if levels:
                    cursor.up()
    found.files.sort(key=lambda file: file.path)
    return Collection(work=work, files=tuple(found.files), remarks=found.remarks())


def _look_at(cursor: Cursor, found: "_Found") -> list[bytes]:
    """Note the files of the cursor's directory and return the names of the directories to visit next."""
    directories = []
    with os.scandir(cursor.fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            path = cursor.path_of(name)
            if found.is_silent(path, name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    reason = _refuse_path(path)
                    if not reason:
                        found.hold(name)
                        directories.append(name)
                elif stat.S_ISREG(status.st_mode):
                    reason = _refuse_path(path) or _note_file(cursor, name, path, found)
                else:
                    reason = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
            except OSError as error:
                reason = error.strerror or "unreadable"
            if reason:
                found.leave_out(path, reason)
    return directories


_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def _refuse_path(path: bytes) -> str:
    try:
        check_artifact_path(text(path))
    except InvalidName as error:
        return str(error).rpartition(": ")[2]
    return ""


def _note_file(cursor: Cursor, name: bytes, path: bytes, found: "_Found") -> str:
    with cursor.open_file(name) as fd:
        status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    # What the job's users own was the job's to read anyway; what is another user's and has a second name may be a file
    # from elsewhere, linked in by a set-uid program.
    if status.st_uid not in found.owners and status.st_nlink > 1:
        return "hard link to a file of another user"
    found.add(File(path=path, size=status.st_size, mtime=status.st_mtime_ns, identity=identity(status)))
    return ""


@mutable(kw_only=True)
class _Found:
    """What a walk has found so far, within the limits."""

    rules: Rules
    script: bytes
    owners: range
    files: list[File] = field(factory=list)
    _size: int = 0
    _entries: int = 0
    _names: int = 0
    _left_out: list[str] = field(factory=list)
    _more_left_out: int = 0

    def is_silent(self, path: bytes, name: bytes) -> bool:
        """Count an entry, and return whether it is left out without a word. Raises TooMuchLeft."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise TooMuchLeft(f"more than {MAX_ENTRIES} files and directories are left in the work directory")
        return path == self.script or (not self.rules.dotfiles and name.startswith(b"."))

    def hold(self, name: bytes) -> None:
        """Count a name that is kept. Raises TooMuchLeft."""
        self._names += len(name)
        if self._names > MAX_NAMES:
            raise TooMuchLeft(f"the names of the files take more than {format_size(MAX_NAMES)}")

    def add(self, file: File) -> None:
        """Note an artifact. Raises TooMuchLeft."""
        self.hold(file.path)
        self.files.append(file)
        self._size += file.size
        max_artifacts = self.rules.max_artifacts if self.rules.max_artifacts is not None else MAX_ARTIFACTS
        if len(self.files) > max_artifacts:
            raise TooMuchLeft(f"more than the {max_artifacts} artifacts allowed")
        max_bytes = min(self.rules.max_bytes if self.rules.max_bytes is not None else MAX_TOTAL, MAX_TOTAL)
        if self._size > max_bytes:
            raise TooMuchLeft(f"the artifacts take more than the {format_size(max_bytes)} allowed")

    def leave_out(self, path: bytes, reason: str) -> None:
        """Note something that is no artifact."""
        if len(self._left_out) < MAX_REPORTED:
            shown = printable(text(path[:MAX_SHOWN])) + ("..." if len(path) > MAX_SHOWN else "")
            self._left_out.append(f"left out {shown}: {reason}")
        else:
            self._more_left_out += 1

    def remarks(self) -> tuple[str, ...]:
        """Return the lines about what was left out, in an order that does not depend on the file system."""
        more = (f"left out {self._more_left_out} more",) if self._more_left_out else ()
        return (*sorted(self._left_out), *more)


MAX_SHOWN = 300
"""Bytes of a path that a console line shows."""
