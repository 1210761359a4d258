"""Messages to DER and back: the only user of asn1tools.

The module is compiled for BER and DER is enforced here, since asn1tools' DER codec turns ``[UNIVERSAL 12] IMPLICIT``
into a context tag (seen in 0.169). DER gives every value one encoding, so a value that is decoded and encoded again
must be the same bytes: that one comparison refuses lengths and integers that are not minimal, constructed strings,
elements too many and bytes left over. ``der.check`` runs first and bounds depth and number of elements.
"""

import functools
import re
from collections.abc import Callable
from importlib import resources
from typing import Any
from uuid import UUID

import asn1tools

from builder import der
from builder.errors import ProtocolError
from builder.messages import (
    KINDS,
    DropPlatform,
    Execute,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Message,
    Observe,
    Output,
    Reschedule,
    Role,
    Schedule,
    ScheduleOrbBuild,
    ServerHello,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import (
    NO_PLATFORM,
    Aborted,
    Artifact,
    DroppedPlatform,
    Exited,
    Instant,
    Job,
    OrbBuildJob,
    Period,
    Queue,
    Result,
    RunningBuild,
    ScheduleItem,
    ScriptJob,
    Signalled,
    StateItem,
    Stopped,
    raw,
    text,
)
from builder.times import decode_time, encode_time

_MAX_INTEGER = 2**62 - 1
_MIN_INTEGER = -(2**62)

_MAX_ELEMENTS = 10_000
"""Elements of a message: all but an info reply and a job finished have less than 20, but for ignored files."""

_MAX_LIST_ELEMENTS = 2_000_000
"""Elements of what holds lists: a schedule item has 10, so this is 40 000 jobs in several queues each."""

_Asn1 = Any  # what asn1tools gives and takes: dicts, lists, bytes, ints, (alternative, value) pairs


@functools.cache
def _module() -> Any:
    # compiled at the first use: it takes 50 ms, which `--help` should not wait for
    return asn1tools.compile_string(resources.files("builder").joinpath("builder.asn1").read_text("ascii"), "ber")


# --- parts ---------------------------------------------------------------------------------------------------------


def _integer(value: int) -> int:
    if not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise ProtocolError("integer beyond 62 bits")
    return value


def _uuid(data: bytes) -> UUID:
    if len(data) < 16:
        raise ProtocolError("a uuid must have 16 bytes")
    return UUID(bytes=bytes(data[:16]))


_REPEATED_SLASHES = re.compile(rb"(?s)(?<=.)/+")  # two slashes at the begin are left: POSIX lets them mean something


def decode_path(data: bytes) -> str:
    """Return the path of a file; ProtocolError for what the original refuses. Far more may not be stored: see the model."""
    if not data or b"\0" in data:
        raise ProtocolError("a path is empty or contains a NUL")
    return text(_REPEATED_SLASHES.sub(b"/", data))  # as the original reads it, so that a/b and a//b are one path


def _from_time(value: Instant) -> _Asn1:
    return "generalizedTime", encode_time(value)


def _to_time(value: _Asn1) -> Instant:
    return decode_time(*value)


def _from_script_job(job: ScriptJob) -> _Asn1:
    return {"name": raw(job.name), "script": job.script, "files": [], "platform": raw(job.platform)}


def _to_script_job(value: _Asn1) -> ScriptJob:
    for file in value["files"]:
        decode_path(file["path"])
    platform = text(value["platform"]) if "platform" in value else NO_PLATFORM
    return ScriptJob(name=text(value["name"]), platform=platform, script=bytes(value["script"]))


def _from_orb_build_job(job: OrbBuildJob) -> _Asn1:
    return {"name": raw(job.name), "opamPackage": raw(job.opam_package)}


def _to_orb_build_job(value: _Asn1) -> OrbBuildJob:
    return OrbBuildJob(name=text(value["name"]), opam_package=text(value["opamPackage"]))


def _from_job(job: Job) -> _Asn1:
    if isinstance(job, ScriptJob):
        return "script", _from_script_job(job)
    return "orb", _from_orb_build_job(job)


def _to_job(value: _Asn1) -> Job:
    kind, content = value
    return _to_script_job(content) if kind == "script" else _to_orb_build_job(content)


def _from_period(period: Period) -> _Asn1:
    return period.value, None


def _to_period(value: _Asn1) -> Period:
    return Period(value[0])


def _from_result(result: Result) -> _Asn1:
    match result:
        case Exited(code=code):
            return "exited", _integer(code)
        case Signalled(signal=number):
            return "signalled", _integer(number)
        case Stopped(signal=number):
            return "stopped", _integer(number)
        case Aborted(message=message):
            return "message", raw(message)


def _to_result(value: _Asn1) -> Result:
    kind, content = value
    match kind:
        case "exited":
            return Exited(code=_integer(content))
        case "signalled":
            return Signalled(signal=_integer(content))
        case "stopped":
            return Stopped(signal=_integer(content))
    return Aborted(message=text(content))


def _from_artifact(artifact: Artifact) -> _Asn1:
    return {"path": raw(artifact.path), "content": artifact.content}


def _to_artifact(value: _Asn1) -> Artifact:
    return Artifact(path=decode_path(value["path"]), content=bytes(value["content"]))


def _from_schedule_item(item: ScheduleItem) -> _Asn1:
    return {"next": _from_time(item.next), "period": _from_period(item.period), "job": _from_job(item.job)}


def _to_schedule_item(value: _Asn1) -> ScheduleItem:
    return ScheduleItem(next=_to_time(value["next"]), period=_to_period(value["period"]), job=_to_job(value["job"]))


def _from_queue(queue: Queue) -> _Asn1:
    return {"platform": raw(queue.platform), "jobs": [_from_job(job) for job in queue.jobs]}


def _to_queue(value: _Asn1) -> Queue:
    return Queue(platform=text(value["platform"]), jobs=tuple(_to_job(job) for job in value["jobs"]))


def _from_running(build: RunningBuild) -> _Asn1:
    return {"started": _from_time(build.started), "uuid": build.uuid.bytes, "job": _from_script_job(build.job)}


def _to_running(value: _Asn1) -> RunningBuild:
    return RunningBuild(started=_to_time(value["started"]), uuid=_uuid(value["uuid"]), job=_to_script_job(value["job"]))


def _to_info_reply(value: _Asn1) -> InfoReply:
    return InfoReply(
        schedule=tuple(_to_schedule_item(item) for item in value["schedule"]),
        queues=tuple(_to_queue(queue) for queue in value["queues"]),
        running=tuple(_to_running(build) for build in value["running"]),
        dropped_platforms=tuple(text(name) for name in value.get("droppedPlatforms", [])),
    )


# --- messages ------------------------------------------------------------------------------------------------------


def _from_message(message: Message) -> _Asn1:
    match message:
        case Hello(role=role, version=version):
            return "hello", {"role": (role.value, None), "version": _integer(version)}
        case ServerHello():
            return "serverHello", None
        case JobRequested(platform=platform):
            return "jobRequested", raw(platform)
        case JobSchedule(uuid=uuid, job=job):
            return "jobSchedule", {"uuid": uuid.bytes, "job": _from_script_job(job)}
        case Output(uuid=uuid, line=line, timestamp=timestamp):
            value = {"uuid": uuid.bytes, "line": line}
            return "output", value if timestamp is None else value | {"timestamp": _integer(timestamp)}
        case JobFinished(uuid=uuid, result=result, artifacts=artifacts):
            data = [_from_artifact(artifact) for artifact in artifacts]
            return "jobFinished", {"uuid": uuid.bytes, "result": _from_result(result), "data": data}
        case Schedule(period=period, job=job):
            return "schedule", {"period": _from_period(period), "job": _from_script_job(job)}
        case ScheduleOrbBuild(period=period, job=job):
            return "scheduleOrbBuild", {"period": _from_period(period), "job": _from_orb_build_job(job)}
        case Unschedule(name=name):
            return "unschedule", raw(name)
        case Reschedule(name=name, next=moment, period=period):
            value = {"name": raw(name), "next": _from_time(moment)}
            return "reschedule", value if period is None else value | {"period": _from_period(period)}
        case Execute(name=name, platform=platform):
            value = {"name": raw(name)}
            return "execute", value if platform is None else value | {"platform": raw(platform)}
        case Observe(uuid=uuid):
            return "observe", uuid.bytes
        case DropPlatform(platform=platform):
            return "dropPlatform", raw(platform)
        case UndropPlatform(platform=platform):
            return "undropPlatform", raw(platform)
        case Info():
            return "info", None
        case InfoReply():
            return "infoReply", {
                "schedule": [_from_schedule_item(item) for item in message.schedule],
                "queues": [_from_queue(queue) for queue in message.queues],
                "running": [_from_running(build) for build in message.running],
                "droppedPlatforms": [raw(platform) for platform in message.dropped_platforms],
            }
        case Success():
            return "success", None
        case Failure(message=reason):
            return "failure", raw(reason)


def _optional_text(value: _Asn1, key: str) -> str | None:
    return text(value[key]) if key in value else None


_TO_MESSAGE: dict[str, Callable[[_Asn1], Message]] = {
    "hello": lambda value: Hello(role=Role(value["role"][0]), version=_integer(value["version"])),
    "serverHello": lambda _: ServerHello(),
    "jobRequested": lambda value: JobRequested(platform=text(value)),
    "jobSchedule": lambda value: JobSchedule(uuid=_uuid(value["uuid"]), job=_to_script_job(value["job"])),
    "output": lambda value: Output(
        uuid=_uuid(value["uuid"]),
        line=bytes(value["line"]),
        timestamp=_integer(value["timestamp"]) if "timestamp" in value else None,
    ),
    "jobFinished": lambda value: JobFinished(
        uuid=_uuid(value["uuid"]),
        result=_to_result(value["result"]),
        artifacts=tuple(_to_artifact(file) for file in value["data"]),
    ),
    "schedule": lambda value: Schedule(period=_to_period(value["period"]), job=_to_script_job(value["job"])),
    "scheduleOrbBuild": lambda value: ScheduleOrbBuild(
        period=_to_period(value["period"]), job=_to_orb_build_job(value["job"])
    ),
    "unschedule": lambda value: Unschedule(name=text(value)),
    "reschedule": lambda value: Reschedule(
        name=text(value["name"]),
        next=_to_time(value["next"]),
        period=_to_period(value["period"]) if "period" in value else None,
    ),
    "execute": lambda value: Execute(name=text(value["name"]), platform=_optional_text(value, "platform")),
    "oldExecute": lambda value: Execute(name=text(value), platform=None),
    "observe": lambda value: Observe(uuid=_uuid(value)),
    "dropPlatform": lambda value: DropPlatform(platform=text(value)),
    "undropPlatform": lambda value: UndropPlatform(platform=text(value)),
    "info": lambda _: Info(),
    "infoReply": _to_info_reply,
    "oldInfoReply": _to_info_reply,
    "success": lambda _: Success(),
    "failure": lambda value: Failure(message=text(value)),
}


# --- what others call ----------------------------------------------------------------------------------------------


def _decode(type_name: str, data: bytes, *, max_elements: int) -> _Asn1:
    der.check(data, max_elements=max_elements)
    try:
        value = _module().decode(type_name, data)
        canonical = _module().encode(type_name, value)
    except asn1tools.Error as error:
        # its message names the path of types and the offset: of use in a log, on one line
        raise ProtocolError(f"malformed {type_name}: {' '.join(str(error).split())[:200]}") from error
    if canonical != data:
        raise ProtocolError(f"malformed {type_name}: not in the one encoding that DER allows")
    return value


def encode(message: Message) -> bytes:
    """Return the DER of a message, without the frame's length.

    Raises ProtocolError for an integer that the original could not read.
    """
    return bytes(_module().encode("Command", _from_message(message)))


def decode(data: bytes) -> Message:
    """Return the message of exactly these bytes. Raises ProtocolError for any other bytes than a message's."""
    kind = KINDS.get(data[0] & 0x1F) if data and data[0] & 0xE0 == 0xA0 else None
    if kind is None:
        raise ProtocolError(f"unknown kind of message, tag 0x{data[0]:02x}" if data else "empty message")
    lists = kind in (InfoReply, JobFinished)
    alternative, value = _decode("Command", data, max_elements=_MAX_LIST_ELEMENTS if lists else _MAX_ELEMENTS)
    return _TO_MESSAGE[alternative](value)


def encode_state(items: tuple[StateItem, ...]) -> bytes:
    """Return the bytes of a ``state`` file of the original."""
    values: list[_Asn1] = []
    for item in items:
        match item:
            case ScheduleItem():
                values.append(("schedule", _from_schedule_item(item)))
            case Queue():
                values.append(("queue", _from_queue(item)))
            case DroppedPlatform(platform=platform):
                values.append(("droppedPlatform", raw(platform)))
    return bytes(_module().encode("State", values))


def decode_state(data: bytes) -> tuple[StateItem, ...]:
    """Return what a ``state`` file of the original holds. Raises ProtocolError if it is not one."""
    items: list[StateItem] = []
    for kind, value in _decode("State", data, max_elements=_MAX_LIST_ELEMENTS):
        match kind:
            case "schedule":
                items.append(_to_schedule_item(value))
            case "oldSchedule":
                items.append(
                    ScheduleItem(
                        next=decode_time("utcTime", value["next"]),
                        period=_to_period(value["period"]),
                        job=_to_script_job(value["job"]),
                    )
                )
            case "queue":
                items.append(_to_queue(value))
            case "droppedPlatform":
                items.append(DroppedPlatform(platform=text(value)))
            case "obsolete0":
                _to_script_job(value)
            case "obsolete2":
                _to_job(value)
    return tuple(items)


# The small parts of an execution and of a job finished, which builder.execution reads and writes as streams.


def encode_script_job(job: ScriptJob) -> bytes:
    """Return the DER of a bare script job."""
    return bytes(_module().encode("ScriptJob", _from_script_job(job)))


def decode_script_job(data: bytes) -> ScriptJob:
    """Return a bare script job; ProtocolError otherwise."""
    return _to_script_job(_decode("ScriptJob", data, max_elements=_MAX_ELEMENTS))


def encode_result(result: Result) -> bytes:
    """Return the DER of a result."""
    return bytes(_module().encode("Result", _from_result(result)))


def decode_result(data: bytes) -> Result:
    """Return a result; ProtocolError otherwise."""
    return _to_result(_decode("Result", data, max_elements=2))


def encode_times(started: Instant, finished: Instant) -> bytes:
    """Return the DER of the two times of an execution."""
    return bytes(_module().encode("Times", {"started": _from_time(started), "finished": _from_time(finished)}))


def decode_times(data: bytes) -> tuple[Instant, Instant]:
    """Return when an execution started and finished; ProtocolError otherwise."""
    value = _decode("Times", data, max_elements=3)
    return _to_time(value["started"]), _to_time(value["finished"])


def decode_uuid(content: bytes) -> UUID:
    """Return the uuid of the content bytes of a Uuid; ProtocolError otherwise."""
    return _uuid(content)


def encode_console_integer(value: int) -> bytes:
    """Return the DER of an INTEGER; ProtocolError if the original could not read it."""
    return der.integer(_integer(value))


def decode_console_integer(content: bytes) -> int:
    """Return the INTEGER with these content bytes; ProtocolError if it is not minimal or beyond 62 bits."""
    if len(content) > 8:
        raise ProtocolError("integer beyond 62 bits")
    value = int.from_bytes(content, "big", signed=True)
    if not content or der.integer(value)[2:] != content:
        raise ProtocolError("integer that is not in its shortest form")
    return _integer(value)
