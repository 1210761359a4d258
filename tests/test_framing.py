"""framing: bytes in any pieces become frames, and a bad one is refused by its first bytes."""

import tracemalloc
from uuid import UUID

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from builder import codec, der, framing
from builder.errors import FrameTooLarge, ProtocolError, RemoteProtocolError, SpeaksTls
from builder.framing import Frame, FrameReader, StreamedFrame
from builder.messages import KINDS, Hello, Info, JobFinished, Message, Output, Success
from builder.outputs import Outputs

ALL = frozenset(KINDS.values())


def drain(reader: FrameReader) -> list[bytes]:
    """Return the bodies of all frames that are complete; a streamed one in one piece, and perhaps not all of it."""
    bodies = []
    while (found := reader.next_frame(ALL)) is not None:
        if isinstance(found, Frame):
            bodies.append(found.body)
            continue
        bodies.append(b"")
        while data := reader.read_body():
            bodies[-1] += data
        if reader.body_left:
            break
    return bodies


@given(st.lists(strategies.messages, max_size=4), st.data())
def test_frames_in_pieces(messages: list[Message], data: st.DataObject) -> None:
    bodies = [codec.encode(message) for message in messages]
    reader = FrameReader()
    found: list[bytes] = []
    for piece in data.draw(strategies.splits(b"".join(map(framing.frame, bodies)))):
        reader.feed(piece)
        if reader.body_left:
            found[-1] += reader.read_body()
        if not reader.body_left:
            found += drain(reader)
    assert found == bodies
    assert not reader.in_frame


@given(strategies.messages, st.data())
def test_a_frame_that_is_cut_off(message: Message, data: st.DataObject) -> None:
    whole = framing.frame(codec.encode(message))
    reader = FrameReader()
    size = data.draw(st.integers(0, len(whole) - 1))
    reader.feed(whole[:size])
    drain(reader)
    assert reader.in_frame == (size > 0)


@given(st.binary(max_size=100), st.sampled_from([ALL, frozenset({Info}), frozenset[type[Message]]()]))
def test_garbage(data: bytes, expected: frozenset[type[Message]]) -> None:
    reader = FrameReader()
    reader.feed(data)
    try:
        found = reader.next_frame(expected)
    except ProtocolError as error:
        assert str(error).isprintable()  # noqa: PT017  no error at all is fine here
        return
    if isinstance(found, Frame):
        assert framing.frame(found.body) == data[: 8 + len(found.body)]


def test_header_and_body_are_one_write() -> None:
    assert framing.frame(b"\xa6\x02\x05\x00") == bytes.fromhex("0000000000000004 a6020500")
    assert framing.frame_header(2**33) == bytes.fromhex("0000000200000000")


@pytest.mark.parametrize("kind", [kind for kind in dict.fromkeys(KINDS.values()) if kind is not JobFinished])
def test_a_frame_is_refused_by_its_header(kind: type[Message]) -> None:
    tag = der.header(der.context(kind.tag), 0)[:-1]
    largest = FrameReader()
    largest.feed(framing.frame_header(kind.max_size) + tag)
    assert largest.next_frame(ALL) is None
    for length in (kind.max_size + 1, 2**33 if kind.max_size < 2**33 else 2**60, 2**64 - 1):
        reader = FrameReader()
        reader.feed(framing.frame_header(length))
        assert reader.next_frame(ALL) is None
        reader.feed(tag)
        with pytest.raises(FrameTooLarge, match=kind.__name__):
            reader.next_frame(ALL)


def test_a_job_finished_has_a_limit_too() -> None:
    reader = FrameReader()
    reader.feed(framing.frame_header(JobFinished.max_size) + b"\xa3")
    assert reader.next_frame(ALL) == StreamedFrame(kind=JobFinished, length=JobFinished.max_size)
    refused = FrameReader()
    refused.feed(framing.frame_header(JobFinished.max_size + 1) + b"\xa3")
    with pytest.raises(FrameTooLarge):
        refused.next_frame(ALL)


@pytest.mark.parametrize("length", [0, 1])
def test_a_frame_that_is_too_short(length: int) -> None:
    reader = FrameReader()
    reader.feed(framing.frame_header(length))
    with pytest.raises(ProtocolError, match="too short"):
        reader.next_frame(ALL)


BEGINS = {0xA0 | number for number in KINDS if number < 0x1F}
LONG = {first | 0x1F for first in range(0, 256, 32)}


@pytest.mark.parametrize("tag", sorted(set(range(256)) - BEGINS - LONG))
def test_a_first_byte_that_begins_no_message(tag: int) -> None:
    reader = FrameReader()
    reader.feed(framing.frame_header(4) + bytes((tag,)))
    with pytest.raises(ProtocolError, match=f"tag 0x{tag:02x}"):
        reader.next_frame(ALL)


@pytest.mark.parametrize("first", sorted(LONG))
@pytest.mark.parametrize(
    ("rest", "reason"), [(b"\x3f", "tag 0x{}3f"), (b"\x81\x00", "tag 0x{}8100"), (b"\x05", "shortest form")]
)
def test_a_long_tag_that_begins_no_message(first: int, rest: bytes, reason: str) -> None:
    reader = FrameReader()
    reader.feed(framing.frame_header(4) + bytes((first,)))
    assert reader.next_frame(ALL) is None
    reader.feed(rest)
    with pytest.raises(ProtocolError, match=reason.format(f"{first:02x}")):
        reader.next_frame(ALL)


def test_what_is_not_expected_is_refused_before_its_body() -> None:
    reader = FrameReader()
    reader.feed(framing.frame_header(100) + b"\xa4")
    with pytest.raises(RemoteProtocolError, match="expected Hello or Info, got Output"):
        reader.next_frame({Hello, Info})
    nothing = FrameReader()
    nothing.feed(framing.frame_header(4) + b"\xb2")
    with pytest.raises(RemoteProtocolError, match="expected nothing, got Success"):
        nothing.next_frame(())


def test_an_endless_frame_is_held_up_to_its_length_and_no_further() -> None:
    reader = FrameReader()
    piece = bytes(64 * 1024)
    tracemalloc.start()
    try:
        reader.feed(framing.frame_header(Output.max_size) + b"\xa4")
        while reader.next_frame(ALL) is None:
            reader.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 3 * Output.max_size
    finally:
        tracemalloc.stop()
    reader.feed(piece)
    with pytest.raises(ProtocolError, match="too short"):
        reader.next_frame(ALL)  # what goes on after it is looked at as the next frame


def test_a_streamed_body_is_not_held() -> None:
    length = 64 * 2**20
    piece = bytes(64 * 1024)
    reader = FrameReader()
    reader.feed(framing.frame_header(length) + b"\xa3")
    assert reader.next_frame({JobFinished}) == StreamedFrame(kind=JobFinished, length=length)
    assert reader.body_left == length
    assert reader.read_body() == b"\xa3"
    total = 1
    tracemalloc.start()
    try:
        while reader.body_left:
            reader.feed(piece)
            total += len(reader.read_body())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert total == length
    # the last piece was a byte longer than the frame
    assert reader.in_frame


def test_the_frame_after_a_streamed_one() -> None:
    reader = FrameReader()
    reader.feed(framing.frame(b"\xa3\x00") + framing.frame(codec.encode(Success())))
    assert reader.next_frame(ALL) == StreamedFrame(kind=JobFinished, length=2)
    assert reader.read_body() == b"\xa3\x00"
    assert reader.read_body() == b""
    assert reader.next_frame(ALL) == Frame(body=codec.encode(Success()))


def test_what_is_taken_in_bulk_is_looked_at_in_bounded_parts_and_not_while_a_frame_is_incomplete() -> None:
    uuid = UUID(int=1)
    outputs, looked = Outputs(uuid), []

    def cut(data: bytes) -> tuple[list[bytes], int]:
        looked.append(len(data))
        return outputs.cut(data)

    reader = FrameReader()
    lines = [b"x" * 1000] * 1000
    reader.feed(outputs.join(lines))
    found: list[bytes] = []
    while taken := reader.take(cut):
        found += taken
    assert found == lines
    assert max(looked) <= framing._BULK
    assert reader.held == 0

    whole = outputs.join([b"x" * 10**6])
    reader.feed(whole[:-1])
    assert reader.take(cut) == []
    assert reader.next_frame(ALL) is None
    looked.clear()
    assert reader.take(cut) == []
    assert looked == []
    reader.feed(whole[-1:])
    assert reader.take(cut) == []  # more than is looked at
    assert reader.next_frame(ALL) == Frame(body=whole[8:])


def test_what_is_awaited_is_forgotten_when_it_was_taken() -> None:
    """Memory is granted for what is awaited."""
    outputs = Outputs(UUID(int=1))
    whole = outputs.join([b"x" * 1000])
    reader = FrameReader()
    reader.feed(whole[:500])
    assert reader.next_frame(ALL) is None
    assert reader.awaited == len(whole)
    reader.feed(whole[500:])
    assert reader.take(outputs.cut) == [b"x" * 1000]
    assert reader.awaited == 0


@pytest.mark.parametrize("begin", [b"\x16\3\1", b"\x15\3\3\0\2\2\x28"])
def test_tls_is_known_by_its_first_bytes(begin: bytes) -> None:
    reader = FrameReader()
    reader.feed(begin[:1])
    assert reader.next_frame({Hello}) is None
    reader.feed(begin[1:])
    with pytest.raises(SpeaksTls):
        reader.next_frame({Hello})
