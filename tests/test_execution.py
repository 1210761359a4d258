"""execution: the record of a build, whole and as a stream, and the body of a job finished."""

import io
import tracemalloc
from collections.abc import Callable, Iterable
from uuid import UUID

import pytest
import strategies
import vectors
from hypothesis import given
from hypothesis import strategies as st
from vectors import Vector

from builder import codec, der, execution, syntax
from builder.errors import ProtocolError
from builder.execution import (
    ArtifactData,
    ArtifactsStart,
    ArtifactStart,
    Event,
    ExecutionEnd,
    ExecutionHead,
    ExecutionReader,
    FinishedHead,
    FinishedReader,
)
from builder.messages import JobFinished
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, ScriptJob, raw

EXEC = vectors.load("exec")
EXEC_DECODE = vectors.load("exec-decode")
UUID_1 = UUID(int=1)

Reader = FinishedReader | ExecutionReader


def by_name(found: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", found, ids=lambda vector: vector.name)


# --- recordings ----------------------------------------------------------------------------------------------------


@by_name(EXEC_DECODE)
def test_executions_that_the_original_decodes_or_refuses(vector: Vector) -> None:
    if vector.accepted:
        assert execution.decode(vector.data) == vectors.execution(vector.fields["value"])
    else:
        with pytest.raises(ProtocolError) as caught:
            execution.decode(vector.data)
        assert str(caught.value).isprintable()


@by_name([vector for vector in EXEC if vector.fields["roundtrip"] == "equal"])
def test_executions_of_the_original(vector: Vector) -> None:
    value = vectors.execution(vector.fields["value"])
    assert execution.decode(vector.data) == value
    assert execution.encode(value) == vector.data


@by_name([vector for vector in EXEC if vector.fields["roundtrip"] != "equal"])
def test_times_below_a_millisecond_are_cut(vector: Vector) -> None:
    # see the same test in test_codec.py
    value = execution.decode(vector.data)
    assert value == vectors.execution(vector.fields["decoded"]) == vectors.execution(vector.fields["value"])
    assert b".000Z" in vector.data
    assert b".000Z" not in execution.encode(value)


# --- properties ----------------------------------------------------------------------------------------------------


def read(reader: Reader, pieces: Iterable[bytes]) -> list[Event]:
    """Return the events, with the data of each artifact in one piece."""
    events: list[Event] = []
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, ArtifactData) and isinstance(events[-1], ArtifactData):
                events[-1] = ArtifactData(data=events[-1].data + event.data)
            else:
                events.append(event)
    reader.finish()
    return events


def artifact_events(artifacts: Iterable[Artifact]) -> list[Event]:
    files = [(file.path, len(file.content)) for file in artifacts]
    events: list[Event] = [ArtifactsStart(length=execution.artifacts_length(files))]
    for file in artifacts:
        events.append(ArtifactStart(path=file.path, size=len(file.content)))
        if file.content:
            events.append(ArtifactData(data=file.content))
    return events


@given(strategies.executions)
def test_every_execution_survives_the_way_there_and_back(value: Execution) -> None:
    assert execution.decode(execution.encode(value)) == value


@given(strategies.executions, st.data())
def test_an_execution_in_pieces(value: Execution, data: st.DataObject) -> None:
    pieces = data.draw(strategies.splits(execution.encode(value)))
    assert read(ExecutionReader(), pieces) == [
        ExecutionHead(job=value.job, uuid=value.uuid),
        *reversed(value.console),
        ExecutionEnd(started=value.started, finished=value.finished, result=value.result),
        *artifact_events(value.artifacts),
    ]


@given(strategies.finished, st.data())
def test_a_job_finished_in_pieces(message: JobFinished, data: st.DataObject) -> None:
    pieces = data.draw(strategies.splits(codec.encode(message)))
    assert read(FinishedReader(), pieces) == [
        FinishedHead(uuid=message.uuid, result=message.result),
        *artifact_events(message.artifacts),
    ]


@given(strategies.executions)
def test_an_execution_byte_by_byte(value: Execution) -> None:
    data = execution.encode(value)
    assert read(ExecutionReader(), (bytes((byte,)) for byte in data)) == read(ExecutionReader(), [data])


def encoded_artifacts(artifacts: Iterable[Artifact]) -> bytes:
    return b"".join(execution.artifact_head(file.path, len(file.content)) + file.content for file in artifacts)


@given(strategies.finished)
def test_what_is_written_as_a_stream_is_the_message(message: JobFinished) -> None:
    files = encoded_artifacts(message.artifacts)
    assert len(files) == execution.artifacts_length((file.path, len(file.content)) for file in message.artifacts)
    head = FinishedHead(uuid=message.uuid, result=message.result)
    assert execution.finished_head(head, len(files)) + files == codec.encode(message)


@given(strategies.executions)
def test_what_is_written_as_a_stream_is_the_execution(value: Execution) -> None:
    lines = [execution.encode_console_line(line) for line in reversed(value.console)]
    files = encoded_artifacts(value.artifacts)
    before, after = execution.execution_head(
        ExecutionHead(job=value.job, uuid=value.uuid),
        ExecutionEnd(started=value.started, finished=value.finished, result=value.result),
        console_length=sum(map(len, lines)),
        data_length=len(files),
    )
    assert before + b"".join(lines) + after + files == execution.encode(value)


@given(strategies.executions, strategies.finished)
def test_artifacts_are_encoded_the_same_in_both(value: Execution, message: JobFinished) -> None:
    # the server copies them from the one into the other without looking
    same = Execution(
        job=value.job,
        uuid=value.uuid,
        console=value.console,
        started=value.started,
        finished=value.finished,
        result=value.result,
        artifacts=message.artifacts,
    )
    files = encoded_artifacts(message.artifacts)
    assert execution.encode(same).endswith(der.header(der.SEQUENCE, len(files)) + files)
    assert codec.encode(message).endswith(der.header(der.SEQUENCE, len(files)) + files)


def outcome(reader: Reader, pieces: Iterable[bytes]) -> list[Event] | None:
    """Return the events, or None where the bytes are refused."""
    try:
        return read(reader, pieces)
    except ProtocolError as error:
        assert str(error).isprintable()  # noqa: PT017  no error at all is fine here
        return None


@given(st.data())
def test_what_is_refused_does_not_depend_on_the_pieces(data: st.DataObject) -> None:
    valid = data.draw(st.sampled_from([strategies.executions.map(execution.encode), vectors_of_executions]))
    damaged = data.draw(strategies.mutated(valid))
    pieces = data.draw(strategies.splits(damaged))
    assert outcome(ExecutionReader(), pieces) == outcome(ExecutionReader(), [damaged])


vectors_of_executions = st.sampled_from([vector.data for vector in EXEC + EXEC_DECODE if len(vector.data) < 1000])


@given(strategies.mutated(strategies.finished.map(codec.encode)), st.data())
def test_a_damaged_job_finished_is_refused_by_the_reader_and_the_codec_alike(data: bytes, draw: st.DataObject) -> None:
    found = with_paths_checked(outcome(FinishedReader(), draw.draw(strategies.splits(data))))
    try:
        message = codec.decode(data)
    except ProtocolError:
        assert found is None
        return
    if not isinstance(message, JobFinished):  # the damage made another message of it
        assert found is None
        return
    assert found is not None
    assert found[0] == FinishedHead(uuid=message.uuid, result=message.result)
    assert found[2:] == artifact_events(message.artifacts)[1:]


def with_paths_checked(events: list[Event] | None) -> list[Event] | None:
    """Do with the paths of a reader, which hands them on as they are, what decoding the whole value does."""
    try:
        return events and [
            ArtifactStart(path=syntax.decode_path(raw(event.path)), size=event.size)
            if isinstance(event, ArtifactStart)
            else event
            for event in events
        ]
    except ProtocolError:
        return None


@given(st.binary(max_size=200), st.sampled_from([FinishedReader, ExecutionReader]))
def test_garbage(data: bytes, reader: Callable[[], Reader]) -> None:
    # no bytes that short and random are a value
    assert outcome(reader(), [data]) is None


@given(strategies.executions.map(execution.encode), st.data())
def test_no_prefix_of_an_execution_is_an_execution(data: bytes, draw: st.DataObject) -> None:
    with pytest.raises(ProtocolError):
        execution.decode(data[: draw.draw(st.integers(0, len(data) - 1))])


@given(strategies.executions.map(execution.encode), st.binary(min_size=1, max_size=3), st.booleans())
def test_bytes_after_the_end(data: bytes, more: bytes, at_once: bool) -> None:  # noqa: FBT001  drawn
    assert outcome(ExecutionReader(), [data + more] if at_once else [data, more]) is None


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_in_pieces() -> None:
    content = bytes(range(256)) * 4096
    value = Execution(
        job=ScriptJob(name="n", platform="p", script=b"s"),
        uuid=UUID_1,
        console=(ConsoleLine(delta=1, line=b"first"), ConsoleLine(delta=2, line=b"second")),
        started=Instant(0),
        finished=Instant(1500),
        result=Exited(code=0),
        artifacts=(Artifact(path="a", content=content), Artifact(path="b", content=b"")),
    )
    data = execution.encode(value)
    events = list(execution.read_execution(io.BytesIO(data)))
    assert [event.line for event in events if isinstance(event, ConsoleLine)] == [b"second", b"first"]
    pieces = [event.data for event in events if isinstance(event, ArtifactData)]
    assert max(map(len, pieces)) <= execution.READ_SIZE
    assert b"".join(pieces) == content
    assert execution.decode(data) == value
    with pytest.raises(ProtocolError, match="cut off"):
        list(execution.read_execution(io.BytesIO(data[:-1])))


def test_a_console_line_that_the_original_could_not_read_is_not_written() -> None:
    with pytest.raises(ProtocolError, match="62 bits"):
        execution.encode_console_line(ConsoleLine(delta=2**62, line=b""))


# --- bounds --------------------------------------------------------------------------------------------------------


def value(tag: int, *content: bytes) -> bytes:
    joined = b"".join(content)
    return der.header(tag, len(joined)) + joined


JOB = codec.encode_script_job(ScriptJob(name="n", platform="p", script=b"s"))
UUID_VALUE = value(der.TEXT, UUID_1.bytes)
RESULT = codec.encode_result(Exited(code=0))


def announced(tag: int, content: bytes, length: int) -> bytes:
    """Return the begin of a value of ``length`` bytes in a SEQUENCE, of which only ``content`` is there."""
    return der.header(tag, der.value_size(length)) + der.header(der.SEQUENCE, length) + content


def peak(reader: Reader, pieces: Iterable[bytes]) -> int:
    """Feed the pieces, which may be refused, and return the most bytes that were held."""
    codec.encode_result(Exited(code=0))  # the module is compiled once, and that is not what is measured
    tracemalloc.start()
    try:
        outcome(reader, pieces)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = 2**33
TEXT_OF_8_GIB = der.header(der.TEXT, HUGE)


@pytest.mark.parametrize(
    ("reader", "begin"),
    [
        (ExecutionReader, announced(0xA0, der.header(der.SEQUENCE, HUGE), 2 * HUGE)),
        (ExecutionReader, announced(0xA0, JOB + TEXT_OF_8_GIB, 2 * HUGE)),
        (ExecutionReader, announced(0xA0, JOB + UUID_VALUE + value(der.SEQUENCE) + TEXT_OF_8_GIB, 2 * HUGE)),
        (FinishedReader, announced(0xA3, TEXT_OF_8_GIB, 2 * HUGE)),
        (FinishedReader, announced(0xA3, UUID_VALUE + der.header(0xA0, HUGE), 2 * HUGE)),
    ],
    ids=["job", "uuid", "times", "finished uuid", "result"],
)
def test_a_small_element_of_8_gib_is_refused_by_its_length(reader: Callable[[], Reader], begin: bytes) -> None:
    with pytest.raises(ProtocolError, match="more than the"):
        list(reader().feed(begin))


def test_a_console_line_of_8_gib_is_refused_by_its_length() -> None:
    line = der.header(der.SEQUENCE, HUGE + 20) + der.integer(1) + TEXT_OF_8_GIB
    console = der.header(der.SEQUENCE, 2 * HUGE) + line
    with pytest.raises(ProtocolError, match="more than the"):
        list(ExecutionReader().feed(announced(0xA0, JOB + UUID_VALUE + console, 3 * HUGE)))


def test_a_path_of_8_gib_is_refused_by_its_length() -> None:
    file = der.header(der.SEQUENCE, HUGE + 20) + TEXT_OF_8_GIB
    length = 2 * HUGE
    data = der.header(der.SEQUENCE, length)
    inner = len(UUID_VALUE + RESULT + data) + length
    with pytest.raises(ProtocolError, match="more than the"):
        list(FinishedReader().feed(announced(0xA3, UUID_VALUE + RESULT + data + file, inner)))


def test_an_artifact_of_many_megabytes_is_never_held() -> None:
    size = 64 * 2**20
    piece = bytes(64 * 1024)
    head = execution.finished_head(
        FinishedHead(uuid=UUID_1, result=Exited(code=0)), execution.artifacts_length([("a", size)])
    )

    def pieces() -> Iterable[bytes]:
        yield head + execution.artifact_head("a", size)
        for _ in range(size // len(piece)):
            yield piece

    reader = FinishedReader()
    total = 0
    tracemalloc.start()
    try:
        for data in pieces():
            total += sum(len(event.data) for event in reader.feed(data) if isinstance(event, ArtifactData))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    reader.finish()
    assert total == size


def test_100_000_nested_values() -> None:
    headers = []
    length = 0
    for _ in range(100_000):
        headers.append(der.header(der.SEQUENCE, length))
        length += len(headers[-1])
    deep = b"".join(reversed(headers))
    for reader, data in (
        (ExecutionReader(), value(0xA0, deep)),
        (ExecutionReader(), announced(0xA0, JOB + UUID_VALUE + value(der.SEQUENCE) + deep, HUGE)),
        (FinishedReader(), announced(0xA3, UUID_VALUE + deep, HUGE)),
    ):
        assert peak(reader, [data]) < 2 * len(data) + 64 * 1024


def test_more_artifacts_than_a_build_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_ARTIFACTS", 1000)  # a million takes seconds
    message = JobFinished(uuid=UUID_1, result=Exited(code=0), artifacts=(Artifact(path="a", content=b""),) * 1001)
    with pytest.raises(ProtocolError, match="more than 1000 artifacts"):
        read(FinishedReader(), [codec.encode(message)])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (value(0x30), "cut off"),
        (value(0x30, value(der.TEXT, b"a")), "cut off"),
        (value(0x30, value(der.TEXT, b"a"), value(der.TEXT, b""), value(der.TEXT, b"")), "after the content"),
        (value(0x31, value(der.TEXT, b"a"), value(der.TEXT, b"")), "expected tag"),
        (value(0x30, value(0x2C, value(der.TEXT, b"a")), value(der.TEXT, b"")), "expected tag"),
        (value(0x30, b"\x0c\x81\x01a", value(der.TEXT, b"")), "shortest"),
        (b"\x30\x80\x00\x00", "indefinite"),
    ],
)
def test_malformed_artifacts(files: bytes, reason: str) -> None:
    data = value(0xA3, value(0x30, UUID_VALUE, RESULT, value(0x30, files)))
    with pytest.raises(ProtocolError, match=reason):
        read(FinishedReader(), [data])
    with pytest.raises(ProtocolError):
        codec.decode(data)


@pytest.mark.parametrize("path", ["", "a\0", "../a", "a//b", "/"])
def test_a_bad_path_comes_out_of_the_reader(path: str) -> None:
    # so that the server can fail the build for it; only what is held in memory is checked where it is decoded
    message = JobFinished(uuid=UUID_1, result=Exited(code=0), artifacts=(Artifact(path=path, content=b"x"),))
    assert ArtifactStart(path=path, size=1) in read(FinishedReader(), [codec.encode(message)])


@pytest.mark.parametrize("path", ["", "a\0"])
def test_a_path_that_no_file_can_have_is_not_decoded(path: str) -> None:
    value = Execution(
        job=ScriptJob(name="n", platform="p", script=b"s"),
        uuid=UUID_1,
        console=(),
        started=Instant(0),
        finished=Instant(0),
        result=Exited(code=0),
        artifacts=(Artifact(path=path, content=b""),),
    )
    with pytest.raises(ProtocolError, match="empty or contains a NUL"):
        execution.decode(execution.encode(value))
    with pytest.raises(ProtocolError, match="empty or contains a NUL"):
        codec.decode(codec.encode(JobFinished(uuid=UUID_1, result=Exited(code=0), artifacts=value.artifacts)))


def test_elements_after_the_last_one() -> None:
    for data in (
        value(0xA3, value(0x30, UUID_VALUE, RESULT, value(0x30), value(0x05))),
        value(0xA3, value(0x30, UUID_VALUE, RESULT, value(0x30)), value(0x05)),
    ):
        with pytest.raises(ProtocolError, match="after the last one"):
            read(FinishedReader(), [data])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (value(0x30, der.integer(1), value(der.TEXT, b"x"), value(0x05)), "after a console line"),
        (value(0x30, der.integer(1)), "longer than what contains it"),
        (value(0x30, value(der.INTEGER, b"\0\1"), value(der.TEXT, b"x")), "shortest form"),
        (value(0x30, value(der.INTEGER), value(der.TEXT, b"x")), "shortest form"),
        (value(0x30, value(der.INTEGER, b"\1" * 9), value(der.TEXT, b"x")), "62 bits"),
        (value(0x30, value(der.INTEGER, b"\1" * 300), value(der.TEXT, b"x")), "62 bits"),
    ],
)
def test_malformed_console_lines(line: bytes, reason: str) -> None:
    times = codec.encode_times(Instant(0), Instant(0))
    data = value(0xA0, value(0x30, JOB, UUID_VALUE, value(0x30, line), times, RESULT, value(0x30)))
    with pytest.raises(ProtocolError, match=reason):
        execution.decode(data)
