"""Executions and jobs finished as streams: written and read in memory that does not grow with their size.

An execution is the value of a ``full`` file: job, uuid, console (newest line first), times, result, artifacts. The
artifacts come last and are encoded as in a job finished, so what a worker sends is copied through while it is checked.

The readers take bytes in pieces of any size and return events:

    job finished:  FinishedHead  ArtifactsStart  (ArtifactStart ArtifactData* )*
    execution:     ExecutionHead  ConsoleLine*  ExecutionEnd  ArtifactsStart  (ArtifactStart ArtifactData* )*

``finish`` then says whether the value was complete. What they hold is the largest single element that is not an
artifact's content: a script or a console line.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO
from uuid import UUID

from attrs import frozen

from builder import codec, der, syntax
from builder.errors import ProtocolError, TooManyArtifacts
from builder.messages import MAX_SCRIPT, JobFinished, Output
from builder.model import Artifact, ConsoleLine, Execution, Instant, Result, ScriptJob, raw, text

READ_SIZE = 256 * 1024
"""Bytes read from a file at once."""

MAX_ARTIFACTS = 1_000_000
"""Most artifacts of one build; more are a fault of the job."""

_MAX_SMALL = 64 * 1024
_MAX_JOB = MAX_SCRIPT + _MAX_SMALL
_MAX_LINE = Output.max_size


@frozen(kw_only=True)
class FinishedHead:
    """The begin of a job finished."""

    uuid: UUID
    result: Result


@frozen(kw_only=True)
class ExecutionHead:
    """The begin of an execution."""

    job: ScriptJob
    uuid: UUID


@frozen(kw_only=True)
class ExecutionEnd:
    """What follows the console of an execution."""

    started: Instant
    finished: Instant
    result: Result


@frozen(kw_only=True)
class ArtifactsStart:
    """All artifacts together take ``length`` bytes, headers included."""

    length: int


@frozen(kw_only=True)
class ArtifactStart:
    """An artifact of ``size`` bytes; its ArtifactData follow, none when it is empty. The path is not checked."""

    path: str
    size: int


@frozen(kw_only=True)
class ArtifactData:
    """The next bytes of the artifact."""

    data: bytes


Event = FinishedHead | ExecutionHead | ConsoleLine | ExecutionEnd | ArtifactsStart | ArtifactStart | ArtifactData

_Steps = Generator[Event | None, None, None]


class _Reader:
    """The incremental reader behind both: ``_steps`` yields events, and None where it needs more bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._piece = b""  # of an artifact, when all before it was returned: it is returned as it came, without a copy
        self._content_left = 0  # bytes of that artifact that are still to come
        self._consumed = 0  # bytes of the value before the buffer's begin
        self._steps: _Steps = self._value()
        self._complete = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take more bytes and return the events they complete. Raises ProtocolError, and nothing works after that."""
        if not self._buffer and not self._piece and len(data) <= self._content_left:
            self._piece = data
        else:
            self._buffer += self._piece
            self._buffer += data
            self._piece = b""
        if self._complete and self._buffer:
            raise ProtocolError("bytes after the end of the value")
        for event in self._steps:
            if event is None:
                return
            yield event
        self._complete = True
        if self._buffer:
            raise ProtocolError("bytes after the end of the value")

    def finish(self) -> None:
        """Raise ProtocolError unless the value was complete."""
        if not self._complete:
            raise ProtocolError("the value is cut off")

    def _value(self) -> _Steps:
        raise NotImplementedError

    # Each of these returns through ``yield from``; ``end`` is the offset in the value at which the container ends.

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield None
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._consumed += size
        return data

    def _peek_header(self, end: int | None) -> Generator[None, None, tuple[int, int, int]]:
        while (found := der.read_header(self._buffer, 0)) is None:
            if end is not None and self._consumed + len(self._buffer) >= end:
                raise ProtocolError("an element is missing or cut off")
            yield None
        tag, length, start = found
        if end is not None and self._consumed + start + length > end:
            raise ProtocolError("an element is longer than what contains it")
        return tag, length, start

    def _enter(self, tag: int, end: int | None) -> Generator[None, None, int]:
        """Read the header of a constructed value and return where it ends."""
        found, length, start = yield from self._peek_header(end)
        if found != tag:
            raise ProtocolError(f"expected tag 0x{tag:02x}, got 0x{found:02x}")
        yield from self._take(start)
        return self._consumed + length

    def _element(self, end: int, limit: int) -> Generator[None, None, bytes]:
        """Read a whole small value."""
        _, length, start = yield from self._peek_header(end)
        if length > limit:
            raise ProtocolError(f"an element of {length} bytes, more than the {limit} allowed")
        return (yield from self._take(start + length))

    def _primitive(self, tag: int, end: int, limit: int) -> Generator[None, None, bytes]:
        """Read the content of a small primitive value."""
        found, length, start = yield from self._peek_header(end)
        if found != tag:
            raise ProtocolError(f"expected tag 0x{tag:02x}, got 0x{found:02x}")
        if length > limit:
            raise ProtocolError(f"an element of {length} bytes, more than the {limit} allowed")
        yield from self._take(start)
        return (yield from self._take(length))

    def _artifacts(self, end: int) -> _Steps:
        data_end = yield from self._enter(der.SEQUENCE, end)
        if data_end != end:
            raise ProtocolError("an element after the last one")
        yield ArtifactsStart(length=data_end - self._consumed)
        count = 0
        while self._consumed < data_end:
            count += 1
            if count > MAX_ARTIFACTS:
                raise TooManyArtifacts(f"more than {MAX_ARTIFACTS} artifacts")
            file_end = yield from self._enter(der.SEQUENCE, data_end)
            path = text((yield from self._primitive(der.TEXT, file_end, _MAX_SMALL)))
            content_end = yield from self._enter(der.TEXT, file_end)
            if content_end != file_end:
                raise ProtocolError("an element after the content of an artifact")
            yield ArtifactStart(path=path, size=content_end - self._consumed)
            while self._consumed < content_end:
                if data := self._next_content(content_end - self._consumed):
                    yield ArtifactData(data=data)
                else:
                    yield None

    def _next_content(self, size: int) -> bytes:
        """Return what has come of so many bytes."""
        if self._piece:
            data, self._piece = self._piece, b""
        else:
            data = bytes(memoryview(self._buffer)[:size])
            del self._buffer[: len(data)]
        self._consumed += len(data)
        self._content_left = size - len(data)
        return data


class FinishedReader(_Reader):
    """Reads the body of a job finished."""

    def _value(self) -> _Steps:
        end = yield from self._enter(der.context(JobFinished.tag), None)
        inner = yield from self._enter(der.SEQUENCE, end)
        if inner != end:
            raise ProtocolError("an element after the last one")
        uuid = syntax.decode_uuid((yield from self._primitive(der.TEXT, end, _MAX_SMALL)))
        result = codec.decode_result((yield from self._element(end, _MAX_SMALL)))
        yield FinishedHead(uuid=uuid, result=result)
        yield from self._artifacts(end)


class ExecutionReader(_Reader):
    """Reads an execution; console lines come newest first, as they are stored."""

    def _value(self) -> _Steps:
        end = yield from self._enter(der.context(0), None)
        inner = yield from self._enter(der.SEQUENCE, end)
        if inner != end:
            raise ProtocolError("an element after the last one")
        job = codec.decode_script_job((yield from self._element(end, _MAX_JOB)))
        uuid = syntax.decode_uuid((yield from self._primitive(der.TEXT, end, _MAX_SMALL)))
        yield ExecutionHead(job=job, uuid=uuid)
        console_end = yield from self._enter(der.SEQUENCE, end)
        while self._consumed < console_end:
            line_end = yield from self._enter(der.SEQUENCE, console_end)
            delta = codec.decode_console_integer((yield from self._primitive(der.INTEGER, line_end, _MAX_SMALL)))
            line = yield from self._primitive(der.TEXT, line_end, _MAX_LINE)
            if self._consumed != line_end:
                raise ProtocolError("an element after a console line")
            yield ConsoleLine(delta=delta, line=line)
        started, finished = codec.decode_times((yield from self._element(end, _MAX_SMALL)))
        result = codec.decode_result((yield from self._element(end, _MAX_SMALL)))
        yield ExecutionEnd(started=started, finished=finished, result=result)
        yield from self._artifacts(end)


class ArtifactsReader(_Reader):
    """Reads artifacts alone, as they end a job finished or an execution."""

    def _value(self) -> _Steps:
        _, length, start = yield from self._peek_header(None)
        yield from self._artifacts(start + length)


def artifacts_offset(file: BinaryIO) -> int:
    """Return where the artifacts of a ``full`` file begin, of which nothing else is read. Raises ProtocolError."""
    offset = 0
    for is_entered in (True, True, False, False, False, False, False):  # job, uuid, console, times, result are passed
        file.seek(offset)
        found = der.read_header(file.read(16), 0)
        if found is None:
            raise ProtocolError("the value is cut off")
        _, length, start = found
        offset += start if is_entered else start + length
    return offset


def read_execution(file: BinaryIO) -> Iterator[Event]:
    """Return the events of a ``full`` file, read in pieces. Raises ProtocolError where it is damaged."""
    reader = ExecutionReader()
    while data := file.read(READ_SIZE):
        yield from reader.feed(data)
    reader.finish()


# --- writing -------------------------------------------------------------------------------------------------------


def encode_console_line(line: ConsoleLine) -> bytes:
    """Return a line as it stands in the console of an execution."""
    content = codec.encode_console_integer(line.delta) + der.header(der.TEXT, len(line.line)) + line.line
    return der.header(der.SEQUENCE, len(content)) + content


def delta_of(encoded: bytes) -> int:
    """Return when a line came that ``encode_console_line`` has encoded."""
    _, start = _skip_header(encoded, 0)
    length, start = _skip_header(encoded, start)
    return codec.decode_console_integer(encoded[start : start + length])


def _skip_header(encoded: bytes, offset: int) -> tuple[int, int]:
    found = der.read_header(encoded, offset)
    assert found, "it is whole"
    return found[1:]


def artifact_head(path: str, size: int) -> bytes:
    """Return what precedes the content of an artifact."""
    encoded = raw(path)
    name = der.header(der.TEXT, len(encoded)) + encoded
    content = der.header(der.TEXT, size)
    return der.header(der.SEQUENCE, len(name) + len(content) + size) + name + content


def artifacts_length(files: Iterable[tuple[str, int]]) -> int:
    """Return the bytes that artifacts with these paths and sizes take together: the length of ArtifactsStart."""
    return sum(len(artifact_head(path, size)) + size for path, size in files)


def finished_head(head: FinishedHead, data_length: int) -> bytes:
    """Return a job finished up to its artifacts, which take ``data_length`` bytes."""
    content = der.header(der.TEXT, 16) + head.uuid.bytes + codec.encode_result(head.result)
    content += der.header(der.SEQUENCE, data_length)
    inner = der.header(der.SEQUENCE, len(content) + data_length) + content
    return der.header(der.context(JobFinished.tag), len(inner) + data_length) + inner


def execution_head(
    head: ExecutionHead, end: ExecutionEnd, *, console_length: int, data_length: int
) -> tuple[bytes, bytes]:
    """Return what stands before the console lines of an execution, and what between them and the artifacts.

    ``console_length`` is the sum of the lengths of the lines' encodings, ``data_length`` that of the artifacts'.
    """
    before = codec.encode_script_job(head.job) + der.header(der.TEXT, 16) + head.uuid.bytes
    before += der.header(der.SEQUENCE, console_length)
    after = codec.encode_times(end.started, end.finished) + codec.encode_result(end.result)
    after += der.header(der.SEQUENCE, data_length)
    length = len(before) + console_length + len(after) + data_length
    before = der.header(der.SEQUENCE, length) + before
    return der.header(der.context(0), der.value_size(length)) + before, after


def encode(execution: Execution) -> bytes:
    """Return the bytes of an execution held in memory."""
    lines = [encode_console_line(line) for line in reversed(execution.console)]
    files = [artifact_head(file.path, len(file.content)) + file.content for file in execution.artifacts]
    before, after = execution_head(
        ExecutionHead(job=execution.job, uuid=execution.uuid),
        ExecutionEnd(started=execution.started, finished=execution.finished, result=execution.result),
        console_length=sum(map(len, lines)),
        data_length=sum(map(len, files)),
    )
    return b"".join((before, *lines, after, *files))


def decode(data: bytes) -> Execution:
    """Return the execution of exactly these bytes. Raises ProtocolError for any others."""
    reader = ExecutionReader()
    console: list[ConsoleLine] = []
    artifacts: list[tuple[str, list[bytes]]] = []
    head: ExecutionHead | None = None
    end: ExecutionEnd | None = None
    for event in reader.feed(data):
        match event:
            case ExecutionHead():
                head = event
            case ConsoleLine():
                console.append(event)
            case ExecutionEnd():
                end = event
            case ArtifactStart(path=path):
                artifacts.append((syntax.decode_path(raw(path)), []))
            case ArtifactData(data=piece):
                artifacts[-1][1].append(piece)
    reader.finish()
    assert head  # the reader was complete
    assert end
    return Execution(
        job=head.job,
        uuid=head.uuid,
        console=tuple(reversed(console)),
        started=end.started,
        finished=end.finished,
        result=end.result,
        artifacts=tuple(Artifact(path=path, content=b"".join(pieces)) for path, pieces in artifacts),
    )
