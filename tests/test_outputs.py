"""Lines in bulk, held against the codec: the same bytes, the same lines, and an end where the codec has to look."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import integers, messages, mutated, splits, uuids

from builder import codec
from builder.errors import ProtocolError
from builder.execution import encode_console_line
from builder.framing import Frame, FrameReader, frame
from builder.messages import KINDS, Message, Output
from builder.model import ConsoleLine
from builder.outputs import Outputs, TimedLines

UUID1 = UUID(int=0x0123456789ABCDEF0123456789ABCDEF)
UUID2 = UUID(int=1)

# Where the lengths of line, sequence, message or frame get one more byte, with a timestamp or without.
_EDGES = [n for edge in (0, 0x80, 0x100, 0x10000) for n in range(edge - 40, edge + 3) if n >= 0]
lines = st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(_EDGES).map(bytes)), max_size=5)
timestamps = st.none() | st.integers(0, 2**62 - 1) | integers


def _framed(uuid: UUID, line: bytes, timestamp: int | None = None) -> bytes:
    return frame(codec.encode(Output(uuid=uuid, line=line, timestamp=timestamp)))


_UNUSUAL = [
    _framed(UUID1, b"a", 300) + _framed(UUID1, b"a", 300).replace(b"\2\2\1\x2c", b"\2\2\0\x2c"),  # not minimal
    b"\0\0\0\0\0\0\0\x1d\xa4\x1b\x30\x19\x0c\x11" + UUID1.bytes + b"\0\x0c\x01a\2\1\5",  # 17 bytes of uuid
]


def _frames(data: bytes) -> Iterator[tuple[Output, int]]:
    """Yield the outputs that the data begins with, by the codec, each with the offset of its end."""
    reader = FrameReader()
    reader.feed(data)
    try:
        while isinstance(found := reader.next_frame(KINDS.values()), Frame):
            message = codec.decode(found.body)
            if not isinstance(message, Output):
                return
            yield message, len(data) - reader.held
    except ProtocolError:
        return


def _lines(data: bytes) -> tuple[list[bytes], int]:
    """Return what ``cut`` has to, by the codec."""
    found, end = [], 0
    for output, after in _frames(data):
        if output.uuid != UUID1 or output.timestamp is not None or frame(codec.encode(output)) != data[end:after]:
            break  # the last: of a uuid of more than 16 bytes, the codec reads the first 16
        found.append(output.line)
        end = after
    return found, end


def _outputs(data: bytes) -> tuple[list[Output], int]:
    """Return what ``read`` has to, by the codec."""
    found, end = [], 0
    for output, after in _frames(data):
        if output.uuid != UUID1:
            break
        found.append(output)
        end = after
    return found, end


def _records(data: bytes) -> tuple[list[bytes], int]:
    """Return what ``records`` has to, by the codec."""
    found, end = [], 0
    for output, after in _frames(data):
        if output.uuid != UUID1 or output.timestamp is None:
            break
        found.append(encode_console_line(ConsoleLine(delta=output.timestamp, line=output.line)))
        end = after
    return found, end


def _timed(data: bytes, since: int) -> tuple[list[TimedLines], int]:
    """Return what ``cut_timed`` has to, by the codec."""
    found, end, last = [], 0, since
    for output, after in _frames(data):
        if output.uuid != UUID1 or output.timestamp is None or output.timestamp < last:
            break
        if frame(codec.encode(output)) != data[end:after]:
            break
        found.append(encode_console_line(ConsoleLine(delta=output.timestamp, line=output.line)))
        end, last = after, output.timestamp
    encoded = sum(map(len, found))
    return [TimedLines(frames=data[:end], count=len(found), encoded=encoded, last=last)] if found else [], end


def _runs(times: st.SearchStrategy[int | None]) -> st.SearchStrategy[bytes]:
    run = st.builds(lambda some, time: b"".join(_framed(UUID1, line, time) for line in some), lines, times)
    return st.lists(run, max_size=4).map(b"".join)


others = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.builds(_framed, uuids, st.binary(max_size=20), timestamps),
    messages.map(lambda message: frame(codec.encode(message))),
)
consoles = st.builds(lambda *parts: b"".join(parts), _runs(timestamps), others, _runs(timestamps))


@given(uuids, lines, timestamps)
def test_joined_lines_are_the_codecs_bytes(uuid: UUID, some: list[bytes], timestamp: int | None) -> None:
    assert Outputs(uuid).join(some, timestamp) == b"".join(_framed(uuid, line, timestamp) for line in some)


@given(lines)
def test_what_was_joined_is_cut_in_one_go(some: list[bytes]) -> None:
    data = Outputs(UUID1).join(some)
    assert Outputs(UUID1).cut(data) == (some, len(data))


@given(st.one_of(_runs(st.none()), consoles, mutated(_runs(st.none())), mutated(consoles)))
@example(_framed(UUID1, b"a") + _framed(UUID2, b"b"))
@example(_framed(UUID1, b"a") + _framed(UUID1, b"b", 5))
@example(b"\0\0\0\0\0\0\0\x1a\xa4\x18\x30\x16\x0c\x11" + UUID1.bytes + b"\0\x0c\x01a")  # 17 bytes of uuid
@example(b"\0\0\0\0\0\0\0\x1b\xa4\x19\x30\x17\x0c\x10" + UUID1.bytes + b"\x0c\x81\x01aa")  # a length not in short form
def test_lines_are_cut_as_far_as_the_codec_reads_them(data: bytes) -> None:
    assert Outputs(UUID1).cut(data) == _lines(data)


@given(st.one_of(_runs(timestamps), consoles, mutated(_runs(timestamps)), mutated(consoles)), st.integers(0, 2**40))
@example(_UNUSUAL[0], 0)
@example(_UNUSUAL[1], 0)
@example(b"".join(_framed(UUID1, b"a", time) for time in (0, 5, 5, 127, 128, 2**31, 2**61)), 0)
@example(_framed(UUID1, b"a", 5) + _framed(UUID1, b"b", 4), 5)
@example(_framed(UUID1, b"a", 5), 6)
def test_lines_with_times_are_cut_as_far_as_they_go_on(data: bytes, since: int) -> None:
    outputs = Outputs(UUID1)
    assert outputs.cut_timed(data, since) == _timed(data, since)
    assert outputs.cut_timed(data, since) == _timed(data, since)  # also with what it remembers of the first time


@given(lines.filter(bool), st.integers(0, 2**62 - 1))
def test_lines_of_one_time_are_as_they_are_cut(some: list[bytes], time: int) -> None:
    timed = Outputs(UUID1).timed(some, time)
    assert Outputs(UUID1).cut_timed(timed.frames, 0) == ([timed], len(timed.frames))


@given(st.one_of(_runs(timestamps.filter(lambda time: time is not None)), consoles, mutated(consoles)))
@example(_UNUSUAL[0])
@example(_UNUSUAL[1])
def test_records_are_those_that_the_codec_reads(data: bytes) -> None:
    assert Outputs(UUID1).records(data) == _records(data)


@given(st.one_of(_runs(timestamps), consoles, mutated(_runs(timestamps)), mutated(consoles)))
@example(_UNUSUAL[0])
@example(_UNUSUAL[1])
@example(_framed(UUID1, b"a", 5) + _framed(UUID1, b"b") + _framed(UUID1, b"c", 300) + _framed(UUID2, b"d", 300))
def test_outputs_are_those_that_the_codec_reads(data: bytes) -> None:
    outputs = Outputs(UUID1)
    assert outputs.read(data) == _outputs(data)
    assert outputs.read(data) == _outputs(data)  # also with what it remembers of the first time


@pytest.mark.parametrize("time", [0, 1, 127, 128, 255, 256, 2**15, 2**39, 2**62 - 1, -1, -(2**62)])
def test_any_timestamp_is_read(time: int) -> None:
    data = Outputs(UUID1).join([b"a", b"", b"b" * 300], time) * 2
    assert Outputs(UUID1).records(data) == _records(data)
    assert Outputs(UUID1).read(data) == _outputs(data)
    assert len(Outputs(UUID1).records(data)[0]) == len(Outputs(UUID1).read(data)[0]) == 6


@pytest.mark.parametrize(
    ("one", "another"), [(1, 127), (128, 2**15 - 1), (2**31, 2**39 - 1), (2**39, 2**47 - 1), (2**55, 2**62 - 1)]
)
def test_the_codec_is_asked_only_where_the_size_of_the_timestamp_changes(
    monkeypatch: pytest.MonkeyPatch, one: int, another: int
) -> None:
    outputs, decoded, decode = Outputs(UUID1), [], codec.decode

    def noted(data: bytes) -> Message:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(codec, "decode", noted)
    data = outputs.join([b"line"] * 100, one) + outputs.join([b"line"] * 100, another)
    assert len(outputs.read(data)[0]) == 200
    assert len(outputs.read(outputs.join([b"line"], one))[0]) == 1  # one alone, as it comes of a build that runs
    assert len(decoded) == 1
    assert len(outputs.records(data)[0]) == 200
    assert len(decoded) == 2


@pytest.mark.parametrize("time", [2**62, -(2**62) - 1])
def test_a_timestamp_that_the_original_cannot_read_is_refused(time: int) -> None:
    with pytest.raises(ProtocolError):
        Outputs(UUID1).join([b"a"], time)


@given(st.data())
def test_how_the_bytes_arrive_makes_no_difference(draw: st.DataObject) -> None:
    some = draw.draw(lines)
    outputs, held, found = Outputs(UUID1), b"", []
    for piece in draw.draw(splits(outputs.join(some) + b"\0")):
        held += piece
        more, end = outputs.cut(held)
        found += more
        held = held[end:]
    assert (found, held) == (some, b"\0")


def test_a_whole_line_is_cut_at_no_byte_but_its_last() -> None:
    data = _framed(UUID1, b"line")
    for end in range(len(data)):
        assert Outputs(UUID1).cut(data[:end]) == ([], 0)


def test_any_number_of_lengths_comes_and_goes() -> None:
    """Only some of the lengths are kept."""
    outputs = Outputs(UUID1)
    some = [bytes(size) for size in [*range(1000), *range(1000)]]
    for timestamp, read in ((None, outputs.cut), (12345, outputs.records)):
        data = outputs.join(some, timestamp)
        found, end = read(data)
        assert end == len(data)
        assert len(found) == len(some)
        assert all(bytes(one) in two for one, two in zip(some, found, strict=True))


def test_the_largest_line_that_a_peer_may_send_is_cut_and_no_larger_one() -> None:
    largest = next(
        size for size in range(Output.max_size, 0, -1) if len(_framed(UUID1, bytes(size))) - 8 <= Output.max_size
    )
    for size in (largest, largest + 1):
        data = Outputs(UUID1).join([bytes(size)])
        assert Outputs(UUID1).cut(data)[1] == (len(data) if size == largest else 0)
