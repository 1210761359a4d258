"""Messages, and the parts of executions, to DER and back."""

import functools

from attrs import frozen

from builder import der, syntax
from builder.errors import ProtocolError
from builder.messages import KINDS, Kind, Message
from builder.model import DroppedPlatform, Instant, Job, Period, Queue, Result, ScheduleItem, ScriptJob, StateItem
from builder.syntax import Syntax, fields_of, integer, syntax_of
from builder.times import decode_time

_MAX_ELEMENTS = 10_000
"""Elements of a script job, for the files that are ignored."""

_MAX_STATE_ELEMENTS = 2_000_000
"""Elements of a ``state`` file, as of an info reply."""


def encode(message: Message) -> bytes:
    """Return the DER of a message, without the frame's length.

    Raises ProtocolError for an integer that the original could not read.
    """
    kind = type(message)
    return syntax.encode(syntax_of(kind), message, tag=kind.tag)


def decode(data: bytes) -> Message:
    """Return the message of exactly these bytes. Raises ProtocolError for any other bytes than a message's."""
    found = der.read_tag(data, 0)
    if found is None:
        raise ProtocolError("a message that is empty or cut off")
    number, kind = kind_of(found[0])
    value: Message = syntax.decode(kind.__name__, _form(number), data, max_elements=kind.max_elements, tag=number)
    return value


@functools.cache
def _form(number: int) -> Syntax:
    """Return how the message with that tag is written, which may be an older form of its kind."""
    kind = KINDS[number]
    return fields_of(kind, kind.older[number]) if number in kind.older else syntax_of(kind)


def kind_of(tag: int) -> tuple[int, Kind]:
    """Return the number of a tag and the kind of message that has it. Raises ProtocolError if there is none."""
    number = der.context_number(tag)
    kind = KINDS.get(number) if number is not None else None
    if number is None or kind is None:
        raise ProtocolError(f"unknown kind of message, tag 0x{tag:02x}")
    return number, kind


# --- the original's state ------------------------------------------------------------------------------------------


def _from_old_schedule(value: syntax.Asn1) -> ScheduleItem:
    return ScheduleItem(
        next=decode_time("utcTime", value["next"]),
        period=syntax_of(Period).from_asn1(value["period"]),
        job=syntax_of(ScriptJob).from_asn1(value["job"]),
    )


_OLD_SCHEDULE = Syntax(
    node={
        "type": "SEQUENCE",
        "members": [
            {**syntax.UTC_TIME, "name": "next"},
            {**syntax_of(Period).node, "name": "period"},
            {**syntax_of(ScriptJob).node, "name": "job"},
        ],
    },
    to_asn1=lambda _: None,  # never written
    from_asn1=_from_old_schedule,
)

STATE = syntax.choice(
    {
        "obsolete0": (0, syntax_of(ScriptJob)),
        "oldSchedule": (1, _OLD_SCHEDULE),
        "obsolete2": (2, syntax_of(Job)),
        "scheduleItem": (3, syntax_of(ScheduleItem)),
        "queue": (4, syntax_of(Queue)),
        "droppedPlatform": (5, syntax_of(DroppedPlatform)),
    }
)
"""An entry of the ``state`` file. The obsolete ones were entries of queues once; they are read and dropped."""

_STATE_FILE = syntax.sequence_of(STATE)


def encode_state(items: tuple[StateItem, ...]) -> bytes:
    """Return the bytes of a ``state`` file of the original."""
    return syntax.encode(_STATE_FILE, items)


def decode_state(data: bytes) -> tuple[StateItem, ...]:
    """Return what a ``state`` file of the original holds. Raises ProtocolError if it is not one."""
    items = syntax.decode("State", _STATE_FILE, data, max_elements=_MAX_STATE_ELEMENTS)
    return tuple(item for item in items if isinstance(item, ScheduleItem | Queue | DroppedPlatform))


# The small parts of an execution and of a job finished, which builder.execution reads and writes as streams.


@frozen
class Times:
    """When an execution started and finished."""

    started: Instant
    finished: Instant


def encode_script_job(job: ScriptJob) -> bytes:
    """Return the DER of a bare script job."""
    return syntax.encode(syntax_of(ScriptJob), job)


def decode_script_job(data: bytes) -> ScriptJob:
    """Return a bare script job; ProtocolError otherwise."""
    job: ScriptJob = syntax.decode("ScriptJob", syntax_of(ScriptJob), data, max_elements=_MAX_ELEMENTS)
    return job


def encode_result(result: Result) -> bytes:
    """Return the DER of a result."""
    return syntax.encode(syntax_of(Result), result)


def decode_result(data: bytes) -> Result:
    """Return a result; ProtocolError otherwise."""
    result: Result = syntax.decode("Result", syntax_of(Result), data, max_elements=2)
    return result


def encode_times(started: Instant, finished: Instant) -> bytes:
    """Return the DER of the two times of an execution."""
    return syntax.encode(syntax_of(Times), Times(started, finished))


def decode_times(data: bytes) -> tuple[Instant, Instant]:
    """Return when an execution started and finished; ProtocolError otherwise."""
    times: Times = syntax.decode("Times", syntax_of(Times), data, max_elements=3)
    return times.started, times.finished


def encode_console_integer(value: int) -> bytes:
    """Return the DER of an INTEGER; ProtocolError if the original could not read it."""
    return der.integer(integer(value))


def decode_console_integer(content: bytes) -> int:
    """Return the INTEGER with these content bytes; ProtocolError if it is not minimal or beyond 62 bits."""
    if len(content) > 8:
        raise ProtocolError("integer beyond 62 bits")
    value = int.from_bytes(content, "big", signed=True)
    if not content or der.integer(value)[2:] != content:
        raise ProtocolError("integer that is not in its shortest form")
    return integer(value)
