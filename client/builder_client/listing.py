"""Lists of console lines and artifacts, gathered while an execution is read, in memory that does not grow with them.

How an entry looks is the caller's: ``form`` makes its bytes, ``separator`` stands between two of them.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator

from attrs import frozen

from builder.execution import READ_SIZE, ArtifactStart
from builder.model import ConsoleLine, printable
from builder.runtime.reversal import Reversal

from .extraction import Extraction, NotWritten
from .output import note

MEMORY_SIZE = 8 * 1024 * 1024
"""Bytes of a list of artifacts up to which no temporary file is made."""


@frozen(kw_only=True)
class ArtifactRecord:
    """An artifact as it was read; ``not_written`` tells why it could not be written where that was asked for."""

    path: str
    size: int
    sha256: str
    not_written: str | None


class ConsoleListing:
    """The console: lines come newest first and are given back oldest first."""

    def __init__(self, *, form: Callable[[ConsoleLine], bytes], separator: bytes) -> None:
        self._form = form
        self._separator = separator
        self._reversal = Reversal()
        self.count = 0
        self.size = 0

    def close(self) -> None:
        """Give the temporary file up."""
        self._reversal.close()

    def add(self, line: ConsoleLine, *, keep: bool) -> None:
        """Count a line, and keep it where it is wanted."""
        if keep:
            # the first that comes is the last in order: nothing follows it
            self._reversal.add(self._form(line) + (self._separator if self.count else b""))
        self.count += 1
        self.size += len(line.line)

    def pieces(self) -> Iterator[bytes]:
        """Return the kept lines in order, joined to pieces."""
        return self._reversal.pieces()


class ArtifactListing:
    """The artifacts, hashed as they pass, and written where there is an extraction.

    ``where`` begins what is said of those that could not be written.
    """

    def __init__(
        self, *, form: Callable[[ArtifactRecord], bytes], separator: bytes, extraction: Extraction | None, where: str
    ) -> None:
        self._form = form
        self._separator = separator
        self._extraction = extraction
        self._where = where
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_SIZE)  # noqa: SIM115  close() ends it
        self._current: ArtifactStart | None = None
        self._hash = hashlib.sha256()
        self._not_written: str | None = None
        self.count = 0
        self.size = 0
        self.not_written = 0

    def close(self) -> None:
        """Give the temporary file up."""
        self._file.close()

    def start(self, artifact: ArtifactStart) -> None:
        """Begin the next artifact; the one before it is complete."""
        self.finish()
        self._current = artifact
        self._hash = hashlib.sha256()
        self._not_written = None
        if self._extraction is not None:
            self._try(lambda extraction: extraction.start(artifact.path))

    def data(self, data: bytes) -> None:
        """Take the next bytes of the artifact."""
        self._hash.update(data)
        if self._extraction is not None:
            self._extraction.write(data)

    def finish(self) -> None:
        """End the artifact, if there is one."""
        if self._current is None:
            return
        if self._extraction is not None and self._not_written is None:
            self._try(Extraction.complete)
        record = ArtifactRecord(
            path=self._current.path,
            size=self._current.size,
            sha256=self._hash.hexdigest(),
            not_written=self._not_written,
        )
        if record.not_written is not None:
            note(f"{self._where}not written: {printable(record.path)}: {record.not_written}")
        if self.count:
            self._file.write(self._separator)
        self._file.write(self._form(record))
        self._current = None
        self.count += 1
        self.size += record.size
        self.not_written += record.not_written is not None

    def _try(self, step: Callable[[Extraction], None]) -> None:
        assert self._extraction is not None  # the callers looked
        try:
            step(self._extraction)
        except NotWritten as error:
            self._not_written = str(error)

    def pieces(self) -> Iterator[bytes]:
        """Return the list, joined to pieces."""
        self._file.seek(0)
        while piece := self._file.read(READ_SIZE):
            yield piece
