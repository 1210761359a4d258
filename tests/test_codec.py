"""codec: the recordings of the original, round trips, and what comes of bytes that are no message."""

import datetime as dt
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

import pytest
import strategies
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import Vector

from builder import codec, der, times
from builder.errors import ProtocolError
from builder.messages import KINDS, Execute, InfoReply, JobFinished, Message, Output, Schedule
from builder.model import NO_PLATFORM, Exited, Instant

CMD = vectors.load("cmd")
STATE = vectors.load("state")
CMD_DECODE = vectors.load("cmd-decode")
STATE_DECODE = vectors.load("state-decode")


def by_name(found: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", found, ids=lambda vector: vector.name)


# What the original accepts and we refuse, each with the reason. An entry that is accepted after all fails its test.
STRICTER = {
    "inner length 81 7f for 127 (non minimal; off-by-one in strict check)": "DER has one form of each length",
    'generalized time "20261120165956"': "a time without a zone may be any of 26",
    'generalized time "202611201659"': "a time without a zone",
    'generalized time "2026112016"': "a time without a zone",
    'generalized time "20261120165956.241"': "a time without a zone",
    'generalized time "20261120165956.2412"': "a time without a zone",
    'generalized time "20261120165956+01"': "the original ignores a zone of two digits, so the time it reads is wrong",
    'generalized time "202611201659560130"': "a zone without a sign",
    'generalized time "20261120165956.2Z"': "the original reads .2 as 2 ms, everybody else as 200",
    'generalized time "20261120165956.24Z"': "the original reads .24 as 24 ms, everybody else as 240",
    'generalized time "20261120165956.Z"': "a point without a fraction",
    'generalized time "20261120165956.+41Z"': "a sign is no digit",
    'generalized time "20261120165956.-41Z"': "a sign is no digit",
    'generalized time "20261120165960Z"': "no clock that we use has leap seconds",
    'generalized time "2026112016595_Z"': "an underscore is no digit",
    'generalized time "202_1120165956Z"': "an underscore is no digit",
    'utc time "26112016595Z"': "seconds of one digit",
}


def test_what_is_refused_on_purpose_was_recorded() -> None:
    accepted = {vector.name for vector in CMD_DECODE + STATE_DECODE if vector.accepted}
    assert STRICTER.keys() <= accepted


def check_decode(vector: Vector, decode: Callable[[bytes], object], expected: Callable[[Any], object]) -> None:
    if vector.accepted and vector.name not in STRICTER:
        assert decode(vector.data) == expected(vector.fields["value"])
    else:
        with pytest.raises(ProtocolError) as caught:
            decode(vector.data)
        assert str(caught.value).isprintable()


@by_name(CMD_DECODE)
def test_messages_that_the_original_decodes_or_refuses(vector: Vector) -> None:
    check_decode(vector, codec.decode, vectors.message)


@by_name(STATE_DECODE)
def test_state_files_that_the_original_decodes_or_refuses(vector: Vector) -> None:
    check_decode(vector, codec.decode_state, vectors.state)


@by_name([vector for vector in CMD if vector.fields["roundtrip"] == "equal"])
def test_messages_of_the_original(vector: Vector) -> None:
    message = vectors.message(vector.fields["value"])
    assert codec.decode(vector.data) == message
    assert codec.encode(message) == vector.data


@by_name([vector for vector in STATE if vector.fields["roundtrip"] == "equal"])
def test_state_files_of_the_original(vector: Vector) -> None:
    items = vectors.state(vector.fields["value"])
    assert codec.decode_state(vector.data) == items
    assert codec.encode_state(items) == vector.data


# A value that did not survive the original's own round trip has another "decoded" one. There are two reasons.

DIFFERS = [vector for vector in CMD + STATE if vector.fields["roundtrip"] == "differs"]
BEYOND_62_BITS = [vector for vector in DIFFERS if "int64-beyond-ocaml-int" in vector.name]
BELOW_A_MILLISECOND = [vector for vector in DIFFERS if vector not in BEYOND_62_BITS]


def test_every_vector_is_used() -> None:
    assert {vector.fields["roundtrip"] for vector in CMD + STATE} == {"equal", "differs"}
    assert BEYOND_62_BITS
    assert BELOW_A_MILLISECOND


@by_name(BEYOND_62_BITS)
def test_integers_that_the_original_cannot_hold(vector: Vector) -> None:
    assert codec.decode(vector.data) == vectors.message(vector.fields["decoded"])
    with pytest.raises(ProtocolError, match="62 bits"):
        codec.encode(vectors.message(vector.fields["value"]))


@by_name(BELOW_A_MILLISECOND)
def test_times_below_a_millisecond_are_cut(vector: Vector) -> None:
    in_command = vector in CMD
    decode: Callable[[bytes], Any] = codec.decode if in_command else codec.decode_state
    encode: Callable[[Any], bytes] = codec.encode if in_command else codec.encode_state
    model: Callable[[Any], object] = vectors.message if in_command else vectors.state
    value = decode(vector.data)
    assert value == model(vector.fields["decoded"]) == model(vector.fields["value"])
    # The original leaves the fraction out only when it is exactly zero, so a picosecond becomes ".000" there. Here
    # the time is whole by then.
    if b".000Z" in vector.data:
        assert decode(encode(value)) == value
        assert b".000Z" not in encode(value)
    else:
        assert encode(value) == vector.data


# --- properties ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(dict.fromkeys(KINDS.values())))
@settings(max_examples=settings().max_examples // 3)  # there are many kinds
@given(data=st.data())
def test_every_message_survives_the_way_there_and_back(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(strategies.BY_KIND[kind])
    encoded = codec.encode(message)
    assert encoded.startswith(der.header(der.context(kind.tag), 0)[:-1])
    assert codec.decode(encoded) == message


@given(strategies.state)
def test_every_state_survives_the_way_there_and_back(items: Any) -> None:
    assert codec.decode_state(codec.encode_state(items)) == items


def decodes_or_refuses(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], data: bytes) -> None:
    """Whatever the bytes are, the only error is ProtocolError; what is read can be written and read again."""
    try:
        value = decode(data)
    except ProtocolError as error:
        assert str(error).isprintable()  # noqa: PT017  no error at all is fine here
        return
    assert decode(encode(value)) == value


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    decodes_or_refuses(codec.decode, codec.encode, data)
    decodes_or_refuses(codec.decode_state, codec.encode_state, data)


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=100))
def test_garbage_in_a_message(tag: int, content: bytes) -> None:
    data = der.header(der.context(tag), len(content)) + content
    decodes_or_refuses(codec.decode, codec.encode, data)


@given(strategies.mutated(strategies.messages.map(codec.encode)))
def test_damaged_messages(data: bytes) -> None:
    decodes_or_refuses(codec.decode, codec.encode, data)


@given(strategies.mutated(st.sampled_from(CMD + CMD_DECODE).map(lambda vector: vector.data)))
def test_damaged_vectors(data: bytes) -> None:
    decodes_or_refuses(codec.decode, codec.encode, data)


@given(strategies.mutated(strategies.state.map(codec.encode_state)))
def test_damaged_states(data: bytes) -> None:
    decodes_or_refuses(codec.decode_state, codec.encode_state, data)


@given(strategies.messages.map(codec.encode), st.data())
def test_no_prefix_of_a_message_is_a_message(data: bytes, draw: st.DataObject) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(data[: draw.draw(st.integers(0, len(data) - 1))])


# --- times ---------------------------------------------------------------------------------------------------------


@given(strategies.instants)
def test_a_time_has_one_form(instant: Instant) -> None:
    encoded = times.encode_time(instant)
    assert times.decode_time("generalizedTime", encoded) == instant
    assert len(encoded) == (15 if instant.ms % 1000 == 0 else 19)


@given(
    st.datetimes(min_value=dt.datetime(1000, 1, 3), max_value=dt.datetime(9999, 12, 29)),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)),
)
def test_a_time_with_an_offset(moment: dt.datetime, offset: dt.timedelta) -> None:
    minutes = offset // dt.timedelta(minutes=1)
    zoned = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    data = f"{zoned:%Y%m%d%H%M%S.%f%z}".encode("ascii")
    assert times.decode_time("generalizedTime", data) == Instant.from_datetime(zoned)


@given(st.from_regex(rb"[0-9_+\-.Z ]{0,24}", fullmatch=True), st.sampled_from(["utcTime", "generalizedTime"]))
def test_what_looks_like_a_time(data: bytes, kind: str) -> None:
    try:
        instant = times.decode_time(kind, data)
    except ProtocolError:
        return
    assert times.decode_time("generalizedTime", times.encode_time(instant)) == instant


# --- single rules --------------------------------------------------------------------------------------------------

UUID_1 = UUID(int=1)


def value(tag: int, *content: bytes) -> bytes:
    joined = b"".join(content)
    return der.header(tag, len(joined)) + joined


def text_value(data: bytes) -> bytes:
    return value(der.TEXT, data)


def finished_with(files: bytes) -> bytes:
    """Return a job finished with these bytes between the header of its artifacts and the end."""
    result = value(0xA0, der.integer(0))
    return value(0xA3, value(0x30, text_value(UUID_1.bytes), result, value(0x30, files)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"a//b", "a/b"), (b"a////", "a/"), (b"//a", "//a"), (b"////a//b", "//a/b"), (b"\n//b", "\n/b"), (b"///", "//")],
)
def test_repeated_slashes_of_a_path_are_one(path: bytes, expected: str) -> None:
    message = codec.decode(finished_with(value(0x30, text_value(path), text_value(b""))))
    assert isinstance(message, JobFinished)
    assert message.artifacts[0].path == expected


@pytest.mark.parametrize("number", [2**62, -(2**62) - 1, 2**63, 10**100])
def test_an_integer_beyond_62_bits_is_neither_written_nor_read(number: int) -> None:
    with pytest.raises(ProtocolError, match="62 bits"):
        codec.encode(Output(uuid=UUID_1, line=b"", timestamp=number))
    with pytest.raises(ProtocolError, match="62 bits"):
        codec.encode(JobFinished(uuid=UUID_1, result=Exited(code=number), artifacts=()))
    with pytest.raises(ProtocolError, match="62 bits"):
        codec.decode(value(0xA4, value(0x30, text_value(UUID_1.bytes), text_value(b""), der.integer(number))))


@pytest.mark.parametrize("tag", [0, 1, 8, 23, 30])
def test_reserved_and_unknown_tags(tag: int) -> None:
    with pytest.raises(ProtocolError, match="unknown kind of message"):
        codec.decode(value(0xA0 | tag, b"\x05\x00"))


def test_older_forms_are_read() -> None:
    assert codec.decode(bytes.fromhex("ab030c0178")) == Execute(name="x", platform=None)
    empty = InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())
    assert codec.decode(bytes.fromhex("a7083006300030003000")) == empty
    without_platform = bytes.fromhex("a510300ea002050030080c016e0c01733000")
    schedule = codec.decode(without_platform)
    assert isinstance(schedule, Schedule)
    assert schedule.job.platform == NO_PLATFORM


# --- bounds --------------------------------------------------------------------------------------------------------


def nested(tags: bytes) -> bytes:
    """Return values that each hold the next, the first tag outermost."""
    headers = []
    length = 0
    for tag in reversed(tags):
        headers.append(der.header(tag, length))
        length += len(headers[-1])
    return b"".join(reversed(headers))


@cache
def tower(tag: int) -> bytes:
    """Return values of one tag, deeply nested."""
    return nested(bytes((tag,)) * 100_000)


def refused_within(limit: int, decode: Callable[[bytes], object], data: bytes) -> None:
    """Check that the bytes are refused, and that no more than ``limit`` bytes are held on the way."""
    codec.encode(Output(uuid=UUID_1, line=b""))  # the module is compiled once, and that is not what is measured
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tag", sorted(set(KINDS) | {24}))
@pytest.mark.parametrize("inner", [0x30, 0xA0, 0x2C])
def test_100_000_nested_values(tag: int, inner: int) -> None:
    held = tower(inner)
    data = der.header(der.context(tag), len(held)) + held
    refused_within(64 * 1024, codec.decode, data)


def test_100_000_nested_values_in_a_state() -> None:
    refused_within(64 * 1024, codec.decode_state, tower(0x30))


@pytest.mark.parametrize("length", [2**31, 2**33, 2**56 - 1])
def test_a_length_of_gigabytes_with_nothing_behind_it(length: int) -> None:
    refused_within(64 * 1024, codec.decode, der.header(0xA2, length))
    refused_within(64 * 1024, codec.decode_state, der.header(0x30, length))


def test_a_million_ignored_files() -> None:
    file = value(0x30, text_value(b"a"), text_value(b""))
    job = value(0x30, text_value(b"n"), text_value(b"s"), value(0x30, file * 500_000))
    refused_within(64 * 1024, codec.decode, value(0xA5, value(0xA0, b"\x05\x00"), job))
    refused_within(64 * 1024, codec.decode, value(0xA5, value(0x30, value(0xA0, b"\x05\x00"), job)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"\x30", "cut off"),
        (b"\x30\x02\x0c", "longer than what contains it"),
        (b"\x30\x02\x0c\x01", "longer than what contains it"),
        (b"\x30\x03\x0c\x02x\x00", "longer than what contains it"),
        (b"\x30\x00\x00", "after the end"),
        (b"\x0c\x00\x00", "after the end"),
        (b"\x1f\x00\x00", "shortest form"),
        (b"\xbf\x1e\x00", "shortest form"),
        (b"\xbf\x80\x40\x00", "shortest form"),
        (b"\xbf\x81\x82\x03\x00", "too long"),
        (b"\xbf", "cut off"),
        (b"\xbf\x81", "cut off"),
        (b"\x30\x80\x00\x00", "indefinite"),
        (b"\x30\x88" + bytes(8), "more than 7 bytes"),
        (b"\x30\x81\x7f" + bytes(127), "shortest"),
        (b"\x30\x82\x00\x80" + bytes(128), "shortest"),
        (b"\x30\x06" + b"\x0c\x00" * 3, "more than 3 elements"),
    ],
)
def test_what_is_not_one_well_formed_value(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        der.check(data, max_elements=3)


def test_depth() -> None:
    der.check(nested(b"\x30" * der.MAX_DEPTH), max_elements=100)
    with pytest.raises(ProtocolError, match="nested deeper than 16"):
        der.check(nested(b"\x30" * (der.MAX_DEPTH + 1)), max_elements=100)


def info_reply_with_names(count: int) -> bytes:
    return value(0xB6, value(0x30, b"\x30\x00" * 3, value(0x30, b"\x0c\x00" * count)))


def test_millions_of_tiny_elements() -> None:
    with pytest.raises(ProtocolError, match="more than 2000000 elements"):
        codec.decode(info_reply_with_names(2_000_000))


def test_tiny_elements_are_counted_before_they_become_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((codec, "_MAX_STATE_ELEMENTS"), (InfoReply, "max_elements"), (JobFinished, "max_elements")):
        monkeypatch.setattr(owner, name, 50_000)  # measuring memory makes millions slow
    refused_within(64 * 1024, codec.decode, info_reply_with_names(50_000))
    refused_within(64 * 1024, codec.decode_state, value(0x30, value(0xA5, text_value(b"")) * 50_000))
    refused_within(64 * 1024, codec.decode, finished_with(value(0x30, text_value(b"a"), text_value(b"")) * 50_000))


def test_an_integer_of_a_mebibyte() -> None:
    number = value(der.INTEGER, b"\x01" * 2**20)
    data = value(0xA4, value(0x30, text_value(UUID_1.bytes), text_value(b""), number))
    refused_within(16 * 2**20, codec.decode, data)
    with pytest.raises(ProtocolError):
        codec.decode_console_integer(b"\x01" * 2**16)
