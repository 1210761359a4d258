"""The recordings of the original programs in tests/data, as values of builder.model and builder.messages.

A line of ``vectors/*.jsonl`` is a value in JSON and the bytes that stand for it. In a text, ``{"hex": …}`` stands for
bytes that are not UTF-8. A time is days since 1970 and picoseconds of the day.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import frozen

from builder.messages import (
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
    Aborted,
    Artifact,
    ConsoleLine,
    DroppedPlatform,
    Execution,
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
    text,
)

DATA = Path(__file__).parent / "data"

Json = Any


@frozen(kw_only=True)
class Vector:
    """One recording. ``fields`` are those that not every vector has: value, decoded, roundtrip, result."""

    name: str
    data: bytes
    fields: dict[str, Json]

    @property
    def accepted(self) -> bool:
        """Whether the original decodes these bytes."""
        return bool(self.fields["result"] == "ok")


def _lines(path: str) -> list[Json]:
    return [json.loads(line) for line in (DATA / path).read_text("utf-8").splitlines()]


def load(kind: str) -> list[Vector]:
    """Return the vectors of one file, such as "cmd" or "exec-decode"."""
    return [
        Vector(name=line["name"], data=bytes.fromhex(line["hex"]), fields=line)
        for line in _lines(f"vectors/{kind}.jsonl")
    ]


def transcripts() -> dict[tuple[str, int], list[tuple[str, bytes]]]:
    """Return who sent which frame, "c2s" or "s2c", for each recorded connection."""
    found: dict[tuple[str, int], list[tuple[str, bytes]]] = {}
    for line in _lines("transcripts.jsonl"):
        if "dir" in line:
            data = bytes.fromhex(line["header"] + line["hex"])
            found.setdefault((line["session"], line["connection"]), []).append((line["dir"], data))
    return found


# --- JSON to model -------------------------------------------------------------------------------------------------


def octets(value: Json) -> bytes:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode("utf-8")


def string(value: Json) -> str:
    return text(octets(value))


def instant(value: Json) -> Instant:
    """Return the time, cut to milliseconds, and check that both forms of it agree."""
    moment = Instant(value["days"] * 86_400_000 + value["ps"] // 10**9)
    whole, _, fraction = value["rfc3339"].rstrip("Z").partition(".")
    cut = f"{whole}.{fraction[:3]}Z".replace(".000Z", "Z")
    assert moment.isoformat() == cut
    return moment


def script_job(value: Json) -> ScriptJob:
    return ScriptJob(name=string(value["name"]), platform=string(value["platform"]), script=octets(value["script"]))


def orb_build_job(value: Json) -> OrbBuildJob:
    return OrbBuildJob(name=string(value["name"]), opam_package=string(value["opam_package"]))


def job(value: Json) -> Job:
    return script_job(value["job"]) if value["type"] == "script_job" else orb_build_job(value["job"])


def result(value: Json) -> Result:
    match value["type"]:
        case "exited":
            return Exited(code=value["code"])
        case "signalled":
            return Signalled(signal=value["code"])
        case "stopped":
            return Stopped(signal=value["code"])
    return Aborted(message=string(value["msg"]))


def artifacts(value: Json) -> tuple[Artifact, ...]:
    return tuple(Artifact(path=string(file["path"]), content=octets(file["data"])) for file in value)


def schedule_item(value: Json) -> ScheduleItem:
    return ScheduleItem(next=instant(value["next"]), period=Period(value["period"]), job=job(value["job"]))


def queue(value: Json) -> Queue:
    return Queue(platform=string(value["platform"]), jobs=tuple(map(job, value["jobs"])))


def running(value: Json) -> RunningBuild:
    return RunningBuild(started=instant(value["started"]), uuid=UUID(value["uuid"]), job=script_job(value["job"]))


_MESSAGES: dict[str, Callable[[Json], Message]] = {
    "Client_hello": lambda v: Hello(role=Role(v["typ"]), version=v["version"]),
    "Server_hello": lambda _: ServerHello(),
    "Job_requested": lambda v: JobRequested(platform=string(v["platform"])),
    "Job_schedule": lambda v: JobSchedule(uuid=UUID(v["uuid"]), job=script_job(v["job"])),
    "Job_finished": lambda v: JobFinished(
        uuid=UUID(v["uuid"]), result=result(v["result"]), artifacts=artifacts(v["data"])
    ),
    "Output": lambda v: Output(uuid=UUID(v["uuid"]), line=octets(v["output"])),
    "Output_timestamped": lambda v: Output(uuid=UUID(v["uuid"]), line=octets(v["output"]), timestamp=v["timestamp"]),
    "Schedule": lambda v: Schedule(period=Period(v["period"]), job=script_job(v["job"])),
    "Schedule_orb_build": lambda v: ScheduleOrbBuild(period=Period(v["period"]), job=orb_build_job(v["orb_build_job"])),
    "Reschedule": lambda v: Reschedule(
        name=string(v["name"]),
        next=instant(v["next"]),
        period=None if v["period"] is None else Period(v["period"]),
    ),
    "Unschedule": lambda v: Unschedule(name=string(v["name"])),
    "Execute": lambda v: Execute(
        name=string(v["name"]), platform=None if v["platform"] is None else string(v["platform"])
    ),
    "Observe": lambda v: Observe(uuid=UUID(v["uuid"])),
    "Drop_platform": lambda v: DropPlatform(platform=string(v["platform"])),
    "Undrop_platform": lambda v: UndropPlatform(platform=string(v["platform"])),
    "Info": lambda _: Info(),
    "Info_reply": lambda v: InfoReply(
        schedule=tuple(map(schedule_item, v["schedule"])),
        queues=tuple(map(queue, v["queues"])),
        running=tuple(map(running, v["running"])),
        dropped_platforms=tuple(map(string, v["dropped_platforms"])),
    ),
    "Success": lambda _: Success(),
    "Failure": lambda v: Failure(message=string(v["msg"])),
}


def message(value: Json) -> Message:
    """Return the message of a value in cmd.jsonl."""
    return _MESSAGES[value["cmd"]](value)


def state(value: Json) -> tuple[StateItem, ...]:
    """Return the items of a value in state.jsonl."""

    def item(entry: Json) -> StateItem:
        match entry["type"]:
            case "schedule":
                return schedule_item(entry["schedule"])
            case "queue":
                return queue(entry)
        return DroppedPlatform(platform=string(entry["platform"]))

    return tuple(map(item, value["items"]))


def execution(value: Json) -> Execution:
    """Return the execution of a value in exec.jsonl, whose console is newest line first."""
    return Execution(
        job=script_job(value["job"]),
        uuid=UUID(value["uuid"]),
        console=tuple(
            ConsoleLine(delta=line["delta"], line=octets(line["data"])) for line in reversed(value["console"])
        ),
        started=instant(value["started"]),
        finished=instant(value["finished"]),
        result=result(value["result"]),
        artifacts=artifacts(value["output"]),
    )
