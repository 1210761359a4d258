"""A property a function: it takes any bytes, and fails where something is wrong with how they are read."""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from unittest import mock
from uuid import UUID

import trio

from builder import codec, execution
from builder.connection import Connection
from builder.errors import ConnectionEnded, LocalProtocolError, ProtocolError
from builder.execution import ArtifactData, ArtifactsReader, Event, ExecutionReader, FinishedReader
from builder.extension import VERSION, Welcome
from builder.extension.order import ALL
from builder.extension.working import Continue, GiveJob, ResultStored
from builder.framing import StreamedFrame, read_length
from builder.messages import Failure, JobSchedule, Message, Output, ServerHello, Success
from builder.model import ScriptJob
from builder.order import Side
from builder.outputs import Outputs
from builder.provenance import InvalidProvenance
from builder.provenance.envelope import Envelope
from builder.provenance.keys import InvalidKey
from builder.provenance.keys import read as read_keys
from builder.provenance.statement import Statement, artifacts_hash
from builder_server import console
from builder_worker.spool import LineSpool

BUILD = UUID("323b2a40-25d1-4f8e-90af-a4e2b9fd7f22")
"""The build whose lines they are."""


def message(data: bytes) -> None:
    """A message is written as what reads alike: a few values, such as times, have other forms that are read."""
    try:
        found = codec.decode(data)
    except ProtocolError:
        return
    written = codec.encode(found)
    assert codec.decode(written) == found
    assert codec.encode(codec.decode(written)) == written


def state(data: bytes) -> None:
    """So have the entries of the original's file, but for those that are old."""
    try:
        found = codec.decode_state(data)
    except ProtocolError:
        return
    assert codec.decode_state(codec.encode_state(found)) == found


def record(data: bytes) -> None:
    """An execution reads alike whole and in pieces, and is written as what reads alike."""
    whole, ended = _events(ExecutionReader(), [data])
    pieces, ended_in_pieces = _events(ExecutionReader(), _split(data))
    assert (ended, whole) == (ended_in_pieces, pieces) or not ended
    if ended:
        try:
            decoded = execution.decode(data)
        except ProtocolError:
            return  # a path that must reach no file system: those who stream are given it, to name it
        assert execution.decode(execution.encode(decoded)) == decoded
        file = io.BytesIO(data)
        left, complete = _events(ArtifactsReader(), [data[execution.artifacts_offset(file) :]])
        assert complete
        assert whole[len(whole) - len(left) :] == left


def result(data: bytes) -> None:
    """So does a job finished."""
    whole, ended = _events(FinishedReader(), [data])
    pieces, ended_in_pieces = _events(FinishedReader(), _split(data))
    assert (ended, whole) == (ended_in_pieces, pieces) or not ended


Reader = ExecutionReader | FinishedReader | ArtifactsReader


def _events(reader: Reader, pieces: list[bytes]) -> tuple[list[Event], bool]:
    """Return what is read, the contents of artifacts joined, and whether it is complete."""
    found: list[Event] = []
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                last = found[-1] if found else None
                if isinstance(event, ArtifactData) and isinstance(last, ArtifactData):
                    found[-1] = ArtifactData(data=last.data + event.data)
                elif not isinstance(event, ArtifactData) or event.data:
                    found.append(event)
        reader.finish()
    except ProtocolError:
        return found, False
    return found, True


def _split(data: bytes) -> list[bytes]:
    """Cut bytes where they say themselves."""
    cuts = sorted({0, len(data), *(byte % (len(data) + 1) for byte in data[:8])})
    return [data[first:end] for first, end in pairwise(cuts)] or [data]


def lines(data: bytes) -> None:
    """Lines in bulk are what the codec reads, one after the other."""
    expected = list(_outputs(data))
    found, end = Outputs(BUILD).read(data)
    assert found == [output for output, _ in expected][: len(found)]
    assert len(found) == len(expected)
    assert end == (expected[-1][1] if expected else 0)
    records, _ = Outputs(BUILD).records(data)
    assert len(records) == len(list(_while(expected, lambda output: output.timestamp is not None)))
    cut, end = Outputs(BUILD).cut(data)
    assert cut == [output.line for output, _ in expected][: len(cut)]
    assert all(output.timestamp is None for output, _ in expected[: len(cut)])
    timed, end = Outputs(BUILD).cut_timed(data, 0)
    assert b"".join(each.frames for each in timed) == data[:end]
    times = [output.timestamp or 0 for output, until in expected if until <= end]
    assert times == sorted(times)
    assert sum(each.count for each in timed) == len(times)


def _while(expected: list[tuple[Output, int]], is_fine: Callable[[Output], bool]) -> Iterator[Output]:
    for output, _ in expected:
        if not is_fine(output):
            return
        yield output


def _outputs(data: bytes) -> Iterator[tuple[Output, int]]:
    """Yield the outputs of the build at the begin of bytes, and where each ends."""
    start = 0
    while len(data) - start >= 8:
        length, body = read_length(data, start)
        start = body + length
        if length > Output.max_size or start > len(data):
            return
        try:
            found = codec.decode(data[body:start])
        except ProtocolError:
            return
        if not isinstance(found, Output) or found.uuid != BUILD:
            return
        yield found, start


_HEADER = 8 + 4
"""Bytes that tell the length of a frame and its kind, at most: nothing that is whole may be held."""

_JOB = ScriptJob(name="a", platform="p", script=b"")
_ANSWERS: list[Message] = [
    ServerHello(),
    Welcome(version=VERSION),
    JobSchedule(uuid=BUILD, job=_JOB),
    GiveJob(uuid=BUILD, job=_JOB, secret=bytes(32)),
    Continue(lines=0),
    ResultStored(uuid=BUILD),
    Success(),
    Failure(message="no"),
]


def connection(data: bytes) -> None:
    """Whatever a peer sends, it is a message in its turn or an error of the peer's."""
    server = Connection(Side.SERVER, ALL)
    try:
        for piece in [*_split(data), b""]:
            server.receive_data(piece)
            while (found := server.next_message()) is not None:
                if isinstance(found, StreamedFrame):
                    while server.read_body():
                        pass
                    if server.body_left:
                        return
                _answer(server)
    except ConnectionEnded:
        assert server.held < max(server.awaited, _HEADER) or server.body_left
    except LocalProtocolError as error:
        raise AssertionError("it is the peer's error") from error
    except ProtocolError:
        pass


def _answer(server: Connection) -> None:
    """Say what a server could say now."""
    allowed = server.protocol.allowed(Side.SERVER, server.states[Side.SERVER])
    for answer in _ANSWERS:
        if type(answer) in allowed:
            server.send(answer)
            return


def kept_console(data: bytes) -> None:
    """The console on a disk that a crash has cut off: what is shown of it is whole, from wherever it is read."""
    with _file(data) as (path, descriptor):
        expected = [output for output, _ in _outputs(data)]
        old = console.OldConsole(descriptor, len(data))
        shown = b""
        while piece := old.read():
            shown += piece
        assert data.startswith(shown)
        for count in (1, 3):
            assert 0 <= console.last_lines(descriptor, BUILD, len(data), count) <= len(data)
        assert 0 <= console.line_from(descriptor, BUILD, len(data), len(data) // 2) <= len(data)
        with mock.patch.object(trio.from_thread, "check_cancelled"):  # this is no thread of trio's
            extent = console.repair(path, BUILD)
        timed = list(_while([(output, 0) for output in expected], lambda output: output.timestamp is not None))
        assert extent.size == len(b"".join(Outputs(BUILD).join([each.line], each.timestamp) for each in timed))


def spool(data: bytes) -> None:
    """A worker's spool that a crash has cut off has whole batches, and can be gone on with."""
    with _file(data) as (path, _):
        found = LineSpool.open(path)
        try:
            assert found.size <= len(data)
            position = 0
            while position < found.size:
                frames, position = found.read(position)
                assert len(frames) <= len(data)
        finally:
            found.close()


def provenance(data: bytes) -> None:
    """An envelope reads as what it is written from, and whatever is in it, nothing but a refusal comes of that."""
    try:
        found = Envelope.decode(data)
    except InvalidProvenance:
        return
    assert Envelope.decode(found.encode()) == found
    with suppress(InvalidProvenance):
        statement = Statement.decode(found)
        assert statement.artifacts is None or artifacts_hash(statement.artifacts) == statement.directory


def keys(data: bytes) -> None:
    """Keys read as what they are written from."""
    try:
        found = read_keys(data.decode("ascii", "replace"))
    except InvalidKey:
        return
    assert read_keys("".join(map(str, found))) == found


@contextmanager
def _file(data: bytes) -> Iterator[tuple[Path, int]]:
    """Give a file with these bytes, and a descriptor of it."""
    with tempfile.NamedTemporaryFile(prefix="fuzz-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name), file.fileno()


PROPERTIES: tuple[Callable[[bytes], None], ...] = (
    *(message, state, record, result, lines, connection, kept_console, spool, provenance, keys),
)
"""All of them. The first byte of a file of the corpus says which one it is for."""


def check(data: bytes) -> None:
    """Try the bytes of a file of the corpus."""
    if data:
        PROPERTIES[data[0] % len(PROPERTIES)](data[1:])
