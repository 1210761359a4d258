"""Hypothesis strategies for the values of builder.model and builder.messages, with any bytes where the wire has any."""

import types
import typing
from typing import Any, TypeVar

import attrs
from hypothesis import strategies as st

from builder.extension import Welcome, order
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
    NEVER,
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
from builder.needs import MAX_MEMORY, QUANTITIES, TEXTS, Need, together
from builder.planning import MAX_LIMIT, MAX_PRIORITY, MAX_RETRIES, Cron, JobOptions, JobReference, Missed

assert order.ALL, "its import makes all messages known"

T = TypeVar("T")

# Lengths around 128 and 256 change the form of DER's length.
octets = st.one_of(st.binary(max_size=20), st.binary(min_size=120, max_size=270))
strings = octets.map(text)
integers = st.integers(-(2**62), 2**62 - 1)
uuids = st.uuids()
instants = st.integers(-62_167_219_200_000, NEVER.ms).map(Instant)
periods = st.sampled_from(Period)

paths = (
    octets.map(lambda data: data.replace(b"\0", b"0"))
    .filter(bool)
    # repeated slashes are read as one, see test_codec.py
    .map(lambda data: data[:1] + data[1:].replace(b"/", b"_"))
    .map(text)
)

script_jobs: st.SearchStrategy[ScriptJob] = st.builds(ScriptJob, name=strings, platform=strings, script=octets)
orb_build_jobs: st.SearchStrategy[OrbBuildJob] = st.builds(OrbBuildJob, name=strings, opam_package=strings)
jobs: st.SearchStrategy[Job] = script_jobs | orb_build_jobs
results: st.SearchStrategy[Result] = st.one_of(
    st.builds(Exited, code=integers),
    st.builds(Signalled, signal=integers),
    st.builds(Stopped, signal=integers),
    st.builds(Aborted, message=strings),
)
artifacts: st.SearchStrategy[Artifact] = st.builds(Artifact, path=paths, content=octets)
schedule_items: st.SearchStrategy[ScheduleItem] = st.builds(ScheduleItem, next=instants, period=periods, job=jobs)


def _tuples(elements: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(elements, max_size=3).map(tuple)


queues: st.SearchStrategy[Queue] = st.builds(Queue, platform=strings, jobs=_tuples(jobs))
running_builds: st.SearchStrategy[RunningBuild] = st.builds(RunningBuild, started=instants, uuid=uuids, job=script_jobs)
state: st.SearchStrategy[tuple[StateItem, ...]] = _tuples(
    st.one_of(schedule_items, queues, st.builds(DroppedPlatform, platform=strings))
)

finished: st.SearchStrategy[JobFinished] = st.builds(
    JobFinished, uuid=uuids, result=results, artifacts=_tuples(artifacts)
)

BY_KIND: dict[type[Message], st.SearchStrategy[Message]] = {
    Hello: st.builds(Hello, role=st.sampled_from(Role), version=integers),
    ServerHello: st.builds(ServerHello),
    JobRequested: st.builds(JobRequested, platform=strings),
    JobSchedule: st.builds(JobSchedule, uuid=uuids, job=script_jobs),
    Output: st.builds(Output, uuid=uuids, line=octets, timestamp=st.none() | integers),
    JobFinished: finished,
    Schedule: st.builds(Schedule, period=periods, job=script_jobs),
    ScheduleOrbBuild: st.builds(ScheduleOrbBuild, period=periods, job=orb_build_jobs),
    Unschedule: st.builds(Unschedule, name=strings),
    Reschedule: st.builds(Reschedule, name=strings, next=instants, period=st.none() | periods),
    Execute: st.builds(Execute, name=strings, platform=st.none() | strings),
    Observe: st.builds(Observe, uuid=uuids),
    DropPlatform: st.builds(DropPlatform, platform=strings),
    UndropPlatform: st.builds(UndropPlatform, platform=strings),
    Info: st.builds(Info),
    InfoReply: st.builds(
        InfoReply,
        schedule=_tuples(schedule_items),
        queues=_tuples(queues),
        running=_tuples(running_builds),
        dropped_platforms=_tuples(strings),
    ),
    Success: st.builds(Success),
    Failure: st.builds(Failure, message=strings),
}
_labels = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in (*QUANTITIES, *TEXTS))
needs: st.SearchStrategy[Need] = st.one_of(
    st.builds(Need, name=_labels),
    st.builds(Need, name=st.just("cores"), least=st.integers(1, 65536)),
    st.builds(Need, name=st.just("memory"), least=st.integers(1, MAX_MEMORY)),
    st.builds(
        Need, name=st.sampled_from(sorted(TEXTS)), value=st.from_regex(r"[a-z0-9][a-z0-9:+.-]{0,8}", fullmatch=True)
    ),
)
_BOUNDED: st.SearchStrategy[JobOptions] = st.builds(
    JobOptions,
    period=periods,
    cron=st.none() | st.builds(Cron, rule=strings, zone=strings),
    spread=st.booleans(),
    missed=st.sampled_from(Missed),
    priority=st.integers(0, MAX_PRIORITY),
    retries=st.integers(0, MAX_RETRIES),
    time_limit=st.none() | st.integers(1, MAX_LIMIT),
    max_silent=st.none() | st.integers(1, MAX_LIMIT),
    after=st.lists(st.builds(JobReference, name=strings, platform=st.none() | strings), max_size=2, unique=True).map(
        tuple
    ),
    paused=st.booleans(),
    needs=st.lists(needs, max_size=3, unique_by=lambda need: need.name).map(together),
)
_WIRE: dict[Any, st.SearchStrategy[Any]] = {
    str: strings,
    bytes: octets,
    int: integers,
    Instant: instants,
    Result: results,
    Job: jobs,
    JobOptions: _BOUNDED,
    Need: needs,
}


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a type that a field of a message has."""
    if hint in _WIRE:
        return _WIRE[hint]
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case types.UnionType:
            return st.one_of(*map(of_type, arguments))
        case found if found is tuple:
            return _tuples(of_type(arguments[0]))
    if attrs.has(hint):
        return st.builds(hint, **{name: of_type(each) for name, each in fields(hint).items()})
    return st.from_type(hint)


def fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in attrs.fields(kind)}


BY_KIND |= {kind: of_type(kind) for kind in KINDS.values() if kind.tag >= Welcome.tag}
messages: st.SearchStrategy[Message] = st.one_of(*BY_KIND.values())

console_lines: st.SearchStrategy[ConsoleLine] = st.builds(ConsoleLine, delta=integers, line=octets)
executions: st.SearchStrategy[Execution] = st.builds(
    Execution,
    job=script_jobs,
    uuid=uuids,
    console=_tuples(console_lines),
    started=instants,
    finished=instants,
    result=results,
    artifacts=_tuples(artifacts),
)


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Return a valid encoding with a few bytes changed, inserted, removed or repeated."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 4)))
        data[start:end] = draw(st.one_of(st.binary(max_size=4), st.just(bytes(data[start:end]) * 2)))
    return bytes(data)


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Return the bytes cut into pieces, some of them perhaps a single byte."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]
