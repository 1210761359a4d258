"""The record of a finished build on disk: DIR/JOB/UUID/full, beside the build's console.

It is written once, under another name, as the artifacts arrive; then fsync, rename, fsync of the directories. So a
file called ``full`` is always complete, whenever the machine stopped.
"""

import contextlib
import hashlib
import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import UUID

import trio

from builder.errors import InvalidName
from builder.execution import (
    ArtifactData,
    ArtifactStart,
    ExecutionEnd,
    ExecutionHead,
    artifact_head,
    execution_head,
)
from builder.model import check_artifact_path, printable, raw, text
from builder.runtime.files import sync_directory
from builder_server import console
from builder_server.names import directory_name
from builder_server.store import Build, StoredArtifact

T = TypeVar("T")

BATCH = 10_000
"""Artifacts that are put into the database at once, some 30 ms, so that others may write in between."""

_IN_MEMORY = 256 * 1024
"""Bytes of hashes up to which there is no temporary file."""

_HASHED = struct.Struct(">HQ32s")
"""How long a path is, the size of the file and its hash; the path follows."""

_LARGE = 128 * 1024
"""Bytes from which on it is worth another thread to hash them: that takes 70 us, and the hand-over 25."""

_hashing = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="hash")

FILE_NAME = "full"
_UNFINISHED = "full.part"

DIGEST_SIZE = 12
"""Bytes for each path of a build: two paths out of a million have the same ones by chance once in 10^17 builds."""


def build_dir(data_dir: Path, build: Build) -> Path:
    """Return the directory of a build; the name of its job was checked when it was scheduled."""
    return directory_of(data_dir, build.job.name, build.uuid)


def directory_of(data_dir: Path, job: str, uuid: UUID) -> Path:
    """Return the directory of a build of the job with that name."""
    return data_dir / directory_name(job) / str(uuid)


def make_build_dir(data_dir: Path, build: Build) -> Path:
    """Create the directory of a build and return it. Raises OSError."""
    directory = build_dir(data_dir, build)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class _Digests:
    """Paths that were seen. A million of them take 14 MB; as objects in a set they would take 100."""

    def __init__(self) -> None:
        self._buckets: defaultdict[bytes, bytearray] = defaultdict(bytearray)  # by the first bytes: the others of each

    def add(self, path: bytes) -> bool:
        """Add a path; return False if it was there already."""
        digest = hashlib.blake2b(path, digest_size=DIGEST_SIZE + 1).digest()
        # 4096 of them, so that a search is short
        bucket, rest = self._buckets[bytes((digest[0], digest[1] & 0xF))], digest[1:]
        found = bucket.find(rest)
        while found > 0 and found % DIGEST_SIZE:  # the end of one and the begin of another
            found = bucket.find(rest, found + 1)
        if found >= 0:
            return False
        bucket += rest
        return True


class _Hash:
    """The SHA-256 of what comes in pieces.

    A large piece is hashed in a thread of its own, while it is written and the next one is received; that waits for it.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Take the next piece, when the one before is done with."""
        self._wait()
        if len(data) < _LARGE:
            self._sha256.update(data)
        else:
            self._last = _hashing.submit(self._sha256.update, data)

    def digest(self) -> bytes:
        """Return the hash of all that came."""
        self._wait()
        return self._sha256.digest()

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


class ArtifactHashes:
    """Paths, sizes and hashes of the artifacts of a build, in a temporary file once they are many."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._current: tuple[bytes, int] | None = None
        self._hash = _Hash()
        self.count = self.size = 0

    def start(self, path: bytes, size: int) -> None:
        """Begin an artifact; the one before it is complete."""
        self.finish()
        self._current = path, size
        self._hash = _Hash()

    def data(self, data: bytes) -> None:
        """Take the next bytes of the artifact."""
        self._hash.update(data)

    def finish(self) -> None:
        """End the artifact, if there is one."""
        if self._current is None:
            return
        path, size = self._current
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(self._directory))  # noqa: SIM115
        self._file.write(_HASHED.pack(len(path), size, self._hash.digest()) + path)
        self._current = None
        self.count += 1
        self.size += size

    def batches(self) -> Iterator[list[StoredArtifact]]:
        """Yield the artifacts in their order, ``BATCH`` at a time."""
        self.finish()
        if self._file is None:
            return
        self._file.seek(0)
        batch: list[StoredArtifact] = []
        while head := self._file.read(_HASHED.size):
            length, size, sha256 = _HASHED.unpack(head)
            batch.append(StoredArtifact(path=text(self._file.read(length)), size=size, sha256=sha256))
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def close(self) -> None:
        """Give the file up."""
        if self._file is not None:
            self._file.close()


class ResultWriter:
    """Writes the ``full`` of one build. Every method may raise OSError; the caller then calls ``discard``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._paths = _Digests()
        self.hashes = ArtifactHashes(directory)
        self.committed = False

    async def begin(
        self,
        build: Build,
        end: ExecutionEnd,
        extent: console.Extent,
        *,
        data_length: int,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        """Write everything that stands before the artifacts, which take ``data_length`` bytes.

        ``limiter`` has the threads that may do it. Cancelled, it ends after a block of the console.
        """
        before, after = execution_head(
            ExecutionHead(job=build.job, uuid=build.uuid),
            end,
            console_length=extent.encoded_length,
            data_length=data_length,
        )

        def write(file: BinaryIO) -> None:
            file.write(before)
            console.copy_newest_first(self._directory / console.FILE_NAME, build.uuid, extent, file)
            file.write(after)

        self._file = await trio.to_thread.run_sync((self._directory / _UNFINISHED).open, "wb")
        await self._in_thread(write, limiter)

    async def add(self, pieces: Sequence[ArtifactStart | ArtifactData]) -> None:
        """Write artifacts as they come. Raises InvalidName for one that must not be stored."""

        def write(file: BinaryIO) -> None:
            for piece in pieces:
                match piece:
                    case ArtifactStart(path=path, size=size):
                        self._check_path(path)
                        self.hashes.start(raw(path), size)
                        file.write(artifact_head(path, size))
                    case ArtifactData(data=data):
                        self.hashes.data(data)
                        file.write(data)

        await self._in_thread(write)

    def _check_path(self, path: str) -> None:
        check_artifact_path(path)
        if not self._paths.add(raw(path)):
            raise InvalidName(f"two artifacts have the path {printable(path[:200])!r}")

    async def commit(self) -> None:
        """Make the file durable under its name."""

        def write(file: BinaryIO) -> None:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            (self._directory / _UNFINISHED).rename(self._directory / FILE_NAME)
            # the name in its directory, the directory in the job's, the job's in the data directory
            for directory in (self._directory, self._directory.parent, self._directory.parent.parent):
                sync_directory(directory)

        await self._in_thread(write)
        self._file = None
        self.committed = True

    def close(self) -> None:
        """Close what is open, whatever becomes of it."""
        self.hashes.close()
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what could not be written is thrown away
                file.close()

    async def discard(self) -> None:
        """Remove what was written, also a ``full`` that was committed and then not recorded. It stays removed."""

        def remove() -> None:
            self.close()
            if not self._directory.is_dir():
                return
            for name in (_UNFINISHED, FILE_NAME):
                (self._directory / name).unlink(missing_ok=True)
            sync_directory(self._directory)

        await trio.to_thread.run_sync(remove)

    async def _in_thread(self, action: Callable[[BinaryIO], T], limiter: trio.CapacityLimiter | None = None) -> T:
        assert self._file is not None, "begin comes first"
        return await trio.to_thread.run_sync(action, self._file, limiter=limiter)
