"""A build that is kept, as streams: the body of an upload, or an archive of its files."""

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID
from zlib import MAX_WBITS, compressobj

from builder import execution
from builder.execution import ExecutionEnd, ExecutionHead
from builder.model import ConsoleLine, ScriptJob
from builder.runtime.reversal import Reversal
from builder_web.directory import DataDirectory
from builder_web.store.builds import Uploaded
from builder_web.store.records import Build, StoredArtifact

PIECE_SIZE = 256 * 1024
"""Bytes of a file that are read at once."""

README = "README.md"
"""The file whose text becomes the job's readme, and which is no artifact."""

_STAMPED = re.compile(rb"(-?[0-9]+)\.([0-9]{3})s:")
_GZIP = 16 + MAX_WBITS


def console_lines(file: BinaryIO) -> Iterator[ConsoleLine]:
    """Return the lines of a console file, oldest first. One without a time continues the line before it."""
    delta, held = 0, None
    for line in file:
        content = line.removesuffix(b"\n")
        stamp = _STAMPED.match(content)
        if stamp is None and held is not None:
            held += b"\n" + content
            continue
        if held is not None:
            yield ConsoleLine(delta=delta, line=held)
        if stamp is None:
            delta, held = 0, content
        else:
            delta, held = (int(stamp[1]) * 1000 + int(stamp[2])) * 1_000_000, content[stamp.end() :]
    if held is not None:
        yield ConsoleLine(delta=delta, line=held)


def execution_pieces(directory: DataDirectory, build: Build, uploaded: Uploaded) -> Iterator[bytes]:
    """Return the body of an upload that makes this build. Raises OSError."""
    script = directory.below(build.script).read_bytes()
    reversal = Reversal()
    try:
        length = 0
        with directory.below(build.console).open("rb") as console:
            for line in console_lines(console):
                encoded = execution.encode_console_line(line)
                length += len(encoded)
                reversal.add(encoded)
        before, after = execution.execution_head(
            ExecutionHead(job=ScriptJob(name=build.job, platform=build.platform, script=script), uuid=UUID(build.uuid)),
            ExecutionEnd(started=build.started, finished=build.finished, result=build.result),
            console_length=length,
            data_length=execution.artifacts_length(_named(uploaded)),
        )
        yield before
        yield from reversal.pieces()
        yield after
    finally:
        reversal.close()
    for position, file in enumerate(uploaded.artifacts):
        yield from _readme_at(uploaded, position)
        yield execution.artifact_head(file.path, file.size)
        yield from file_pieces(directory.content(file.digest), file.size)
    yield from _readme_at(uploaded, len(uploaded.artifacts))


def _named(uploaded: Uploaded) -> Iterator[tuple[str, int]]:
    if uploaded.readme is not None:
        yield README, len(uploaded.readme.content)
    for file in uploaded.artifacts:
        yield file.path, file.size


def _readme_at(uploaded: Uploaded, position: int) -> Iterator[bytes]:
    if uploaded.readme is not None and uploaded.readme.position == position:
        yield execution.artifact_head(README, len(uploaded.readme.content))
        yield uploaded.readme.content


def file_pieces(path: Path, size: int) -> Iterator[bytes]:
    """Return the content of a file, which must have that size. Raises OSError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise OSError(f"{path} has not the size that was recorded")
        while data := file.read(PIECE_SIZE):
            yield data


def archive_pieces(directory: DataDirectory, build: Build, artifacts: Sequence[StoredArtifact]) -> Iterator[bytes]:
    """Return the artifacts of a build as a compressed tar archive: the same bytes each time. Raises OSError."""
    compress = compressobj(6, wbits=_GZIP)
    for data in _tar_pieces(directory, build, artifacts):
        if out := compress.compress(data):
            yield out
    yield compress.flush()


def _tar_pieces(directory: DataDirectory, build: Build, artifacts: Sequence[StoredArtifact]) -> Iterator[bytes]:
    for file in artifacts:
        info = tarfile.TarInfo(file.path)
        info.size = file.size
        info.mtime = max(0, build.finished.ms // 1000)
        info.mode = 0o755 if file.path.startswith("bin/") else 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from file_pieces(directory.content(file.digest), file.size)
        yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
