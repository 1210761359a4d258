import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from uuid import UUID

import forked
import pytest
from client_harness import (
    DEADLINE,
    EMPTY,
    Answer,
    Server,
    assert_one_line,
    environment,
    run_in_terminal,
    running,
)

from builder.errors import BuilderError
from builder.messages import Failure, Info, InfoReply, Message, Observe, Output, Success
from builder.model import Exited, Instant, Job, OrbBuildJob, Period, Queue, RunningBuild, ScheduleItem, ScriptJob
from builder_client.builds import (
    CLOCK_DIFFERENCE,
    MAX_CANDIDATES,
    QUICK_POLL,
    QUICK_POLLS,
    SLOW_POLL,
    MissedBuild,
    find_build,
    newest_build,
    wait_for_next,
)
from builder_client.errors import Refused
from builder_client.observation import Ending, split_result

A = "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22"
B = "323bffff-25d1-4f8e-90af-a4e2b9fd7f22"
C = "94ec4b4b-e6ff-41f7-8452-d7a6abb7b9cf"


def output(line: bytes, timestamp: int | None = 1_000_000_000, uuid: str = A) -> Output:
    return Output(uuid=UUID(uuid), line=line, timestamp=timestamp)


def server_with(info: InfoReply, *outputs: Output) -> Server:
    """Answer info with ``info``, and an observation with these outputs."""

    def answer(command: Message) -> Answer:
        match command:
            case Info():
                return [info, Success()]
            case Observe(uuid=uuid) if uuid in {build.uuid for build in info.running}:
                return [*outputs, Success()]
        return [Failure(message="uuid not found")]

    return Server(answer)


# --- which build ---


def test_a_prefix_that_one_running_build_has_is_enough() -> None:
    with server_with(running((A, "hello", "p1", 0), (C, "orb", "p1", 0)), output(b"hi"), output(b"exited 0")) as server:
        done = server.run("observe", "323B")
    assert done.returncode == 0
    assert done.stdout == b"1.000s hi\n1.000s exited 0\n"
    assert done.stderr.decode() == f"Observing hello on p1 ({A})\n"
    assert server.seen == [Info(), Observe(uuid=UUID(A))]


def test_an_ambiguous_prefix_lists_the_candidates() -> None:
    with server_with(running((A, "hello", "p1", 0), (B, "bye", "p2", 0), (C, "orb", "p1", 0))) as server:
        done = server.run("observe", "323b")
    assert done.returncode == 3
    assert_one_line(done.stderr)
    assert f"323b is ambiguous: hello on p1 ({A}), bye on p2 ({B}); give more of its digits\n" in done.stderr.decode()
    assert done.stdout == b""


def test_many_candidates_are_not_all_listed() -> None:
    builds = running(*((f"aa{number:030x}", f"job-{number}", "p1", 0) for number in range(MAX_CANDIDATES + 5)))
    with pytest.raises(Refused, match=rf"job-{MAX_CANDIDATES - 1} on p1 \(.*\) and 5 more$"):
        find_build(builds, "aa")


def test_an_unknown_prefix_and_an_unknown_uuid_are_refused() -> None:
    with server_with(running((A, "hello", "p1", 0))) as server:
        prefix = server.run("observe", "94ec")
        whole = server.run("observe", C)
    assert prefix.returncode == whole.returncode == 3
    more = b"; 'info' lists what runs, 'history' what has ended\n"
    assert prefix.stderr == b"builder-client: no running build has a uuid that begins with 94ec" + more
    assert whole.stderr == b"builder-client: uuid not found" + more


def test_the_newest_build_of_a_job_and_platform() -> None:
    info = running((A, "hello", "p1", 5), (B, "hello", "p2", 7), (C, "orb", "p1", 9))
    assert newest_build(info, job=None, platform=None).uuid == UUID(C)
    assert newest_build(info, job="hello", platform=None).uuid == UUID(B)
    assert newest_build(info, job=None, platform="p2").uuid == UUID(B)
    assert newest_build(info, job="hello", platform="p1").uuid == UUID(A)
    with pytest.raises(Refused, match=r"^no running build of orb on p2$"):
        newest_build(info, job="orb", platform="p2")


def test_observe_latest_with_its_options() -> None:
    info = running((A, "hello", "p1", 5), (C, "orb", "p1", 9))
    with server_with(info, output(b"exited 0")) as server:
        done = server.run("observe-latest", "--job", "hello", "--platform", "p1")
        none = server.run("observe-latest", "--platform", "p9")
    assert done.stdout == b"1.000s exited 0\n"
    assert server.seen == [Info(), Observe(uuid=UUID(A)), Info()]
    more = b"; 'info' lists what runs, 'history' what has ended\n"
    assert (none.returncode, none.stderr) == (3, b"builder-client: no running build on p9" + more)


NOW = Instant(1_900_000_000_000)
LATER = Instant(NOW.ms + 86_400_000)
HELLO = ScriptJob(name="hello", platform="p1", script=b"true")
ORB = OrbBuildJob(name="hello", opam_package="hello")


def looks(*infos: InfoReply, pauses: list[float] | None = None) -> RunningBuild:
    """Wait for the next build of hello, with these answers to info; the test fails if they do not suffice."""
    first, *others = infos
    slept: list[float] = [] if pauses is None else pauses
    return wait_for_next(
        iter(others).__next__, first, job="hello", now=lambda: NOW, sleep=slept.append, clock=lambda: 0.0
    )


def farm(job: Job = HELLO, *, next_run: Instant = LATER, **queues: bool) -> InfoReply:
    """Return an info reply with one job and these platforms, each with whether the job waits there."""
    return InfoReply(
        schedule=(ScheduleItem(next=next_run, period=Period.DAILY, job=job),),
        queues=tuple(Queue(platform=name, jobs=(job,) if waits else ()) for name, waits in queues.items()),
        running=(),
        dropped_platforms=(),
    )


BUILDS = running((C, "hello", "p1", 0))
"""What ends the wait, where no build was missed before."""


def test_follow_next_waits_for_a_build_that_was_not_there() -> None:
    before = (A, "hello", "p1", 0)
    pauses: list[float] = []
    found = looks(
        running(before),
        running(before, (C, "orb", "p1", 0)),
        running(before, (B, "hello", "p1", 1)),
        pauses=pauses,
    )
    assert found.uuid == UUID(B)
    assert len(pauses) == 2


def test_follow_next_looks_often_at_first() -> None:
    waiting = running((A, "hello", "p1", 0))
    pauses: list[float] = []
    looks(*[waiting] * (QUICK_POLLS + 3), BUILDS, pauses=pauses)
    assert pauses == [QUICK_POLL] * QUICK_POLLS + [SLOW_POLL] * 3
    assert (QUICK_POLL, QUICK_POLL * QUICK_POLLS, SLOW_POLL) == (0.05, 30, 1)


def test_follow_next_leaves_a_server_most_of_its_time() -> None:
    waiting = running((A, "hello", "p1", 0))
    infos = iter([waiting, waiting, BUILDS])
    times = iter([10.0, 10.5, 20.0, 20.2, 30.0, 30.001])
    pauses: list[float] = []
    wait_for_next(infos.__next__, waiting, job="hello", now=lambda: NOW, sleep=pauses.append, clock=times.__next__)
    assert pauses == pytest.approx([QUICK_POLL, 4.5, 1.8])


@pytest.mark.parametrize(
    "infos",
    [
        [farm(p1=True), farm(p1=False)],
        [farm(p1=False), farm(p1=True), farm(p1=True), farm(p1=False)],
        [farm(ORB, p1=True, p2=True), farm(ORB, p1=True, p2=False)],
        [farm(p1=False, next_run=NOW), farm(p1=False)],
        [farm(p1=False, next_run=Instant(NOW.ms + CLOCK_DIFFERENCE)), farm(p1=False)],
    ],
    ids=["left the queue", "queued later", "left one queue", "was due", "was due by the server's clock"],
)
def test_a_build_too_short_to_be_seen_is_told(infos: list[InfoReply]) -> None:
    with pytest.raises(MissedBuild, match=r"^a build of hello ended before it could be observed; "):
        looks(*infos)


@pytest.mark.parametrize(
    "infos",
    [
        [farm(p1=True), farm(p1=True)],
        [farm(ORB, p1=True, p2=True), farm(ORB, p2=True)],
        [farm(p1=True), farm(ScriptJob(name="hello", platform="p2", script=b""), p1=False, p2=False)],
        [farm(p1=False, next_run=NOW), farm(p1=True)],
        [farm(p1=False, next_run=Instant(NOW.ms + CLOCK_DIFFERENCE + 1)), farm(p1=False)],
        [farm(p1=False), farm(p1=False, next_run=Instant(NOW.ms + CLOCK_DIFFERENCE + 1))],
        [farm(ORB, next_run=NOW), farm(ORB)],
    ],
    ids=["waits", "platform dropped", "replaced", "queued", "postponed", "brought forward", "no platform"],
)
def test_no_build_is_missed_where_there_was_none(infos: list[InfoReply]) -> None:
    assert looks(*infos, BUILDS).uuid == UUID(C)


def test_a_job_that_was_unscheduled_is_unknown() -> None:
    with pytest.raises(Refused, match=r"^unknown job hello$"):
        looks(farm(p1=True), EMPTY)


def test_a_missed_build_ends_the_program() -> None:
    infos = iter([farm(p1=True), farm(p1=False)])
    with Server(lambda _: [next(infos), Success()]) as server:
        done = server.run("observe", "--follow-next", "hello")
    waiting, missed = done.stderr.splitlines(keepends=True)
    assert done.returncode == 3
    assert waiting == b"Waiting for the next build of hello\n"
    assert_one_line(missed)


def test_follow_next_of_an_unknown_job_ends() -> None:
    with server_with(EMPTY) as server:
        done = server.run("observe", "--follow-next", "helo")
    assert done.returncode == 3
    assert done.stderr == b"builder-client: unknown job helo; there are no jobs: 'schedule' adds one\n"


def test_follow_next_as_a_program() -> None:
    infos = iter([running((A, "hello", "p1", 0)), running((B, "hello", "p1", 1))])

    def answer(command: Message) -> Answer:
        if isinstance(command, Info):
            return [next(infos), Success()]
        return [output(b"exited 4", uuid=B), Success()]

    with Server(answer) as server:
        done = server.run("observe", "--follow-next", "hello", "--exit-status")
    assert done.returncode == 4
    assert server.seen[-1] == Observe(uuid=UUID(B))


@pytest.mark.parametrize("arguments", [[], ["323b", "--follow-next", "hello"], ["xyz"]])
def test_wrong_usage_connects_nowhere(arguments: list[str]) -> None:
    with server_with(EMPTY) as server:
        done = server.run("observe", *arguments)
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert server.seen == []


# --- the result ---


@pytest.mark.parametrize(
    ("last", "shown", "status"),
    [
        (b"exited 0", b"exited 0", 0),
        (b"exited 3", b"exited 3", 3),
        (b"exited 256", b"exited 256", 1),
        (b"signalled -7", b"killed by signal KILL (9)", 137),
        (b"execution aborted: timeout", b"aborted: timeout", 125),
        (b"what", b"what", 125),
    ],
)
def test_exit_status_is_the_jobs(last: bytes, shown: bytes, status: int) -> None:
    with server_with(running((A, "hello", "p1", 0)), output(last)) as server:
        with_option = server.run("observe", A, "--exit-status")
        without = server.run("observe", A)
    assert with_option.returncode == status
    assert without.returncode == 0
    assert with_option.stdout == without.stdout == b"1.000s " + shown + b"\n"


def test_a_line_that_reads_like_a_result_is_a_line_unless_it_is_the_last() -> None:
    lines = [output(b"signalled -7", 1), output(b"signalled -7", 2), output(b"x", 3), output(b"exited 3", 4)]
    assert list(split_result(lines)) == [*lines[:3], Ending(output=lines[3], result=Exited(code=3))]


def test_a_held_line_is_not_lost_when_the_observation_breaks_off() -> None:
    def outputs() -> Iterator[Output]:
        yield output(b"exited 3")
        raise BuilderError("lost")

    parts: list[Output | Ending] = []
    with pytest.raises(BuilderError, match="lost"):
        parts.extend(split_result(outputs()))
    # extend keeps what came before the error
    assert parts == [output(b"exited 3")]


def test_a_lost_connection_is_an_error_after_what_came() -> None:
    answers: Iterator[Answer] = iter([[output(b"one"), b"\0\0\0"], [Failure(message="uuid not found")]])
    with Server(lambda _: next(answers)) as server:
        done = server.run("observe", A, "--exit-status")
    assert done.stdout == b"1.000s one\n"
    assert done.returncode == 5
    again, end = done.stderr.splitlines(keepends=True)
    assert again.endswith(b"; trying again in 1 s\n")
    assert_one_line(end)


def test_a_console_is_taken_up_after_a_break() -> None:
    answers: Iterator[Answer] = iter(
        [
            [output(b"one"), output(b"two"), b"\0\0\0"],
            [*map(output, (b"one", b"two", b"three", b"exited 3")), Success()],
        ]
    )
    with Server(lambda _: next(answers)) as server:
        done = server.run("observe", A, "--exit-status")
    assert done.stdout == b"1.000s one\n1.000s two\n1.000s three\n1.000s exited 3\n"
    assert done.returncode == 3
    assert done.stderr.count(b"\n") == 1


# --- what is shown ---

HOSTILE = b"\x1b[2J\r\xff\t\xc2\x9b31mred \xe2\x80\xaebidi"


def test_a_pipe_gets_the_bytes_of_the_job() -> None:
    with server_with(running((A, "hello", "p1", 0)), output(HOSTILE), output(b"", None), output(b"exited 0")) as server:
        done = server.run("observe", A)
    assert done.stdout == b"1.000s " + HOSTILE + b"\n\n1.000s exited 0\n"


def test_a_terminal_gets_no_control_character_of_the_job() -> None:
    with server_with(running((A, "hello", "p1", 0)), output(HOSTILE), output(b"exited 0")) as server:
        status, shown = run_in_terminal(["-r", server.address, "observe", A], environment())
    assert status == 0
    line, result = shown.splitlines()
    assert line == rb"1.000s \x1b[2J\r\xff" + b"\t" + rb"\x9b31mred \u202ebidi"
    assert result == b"1.000s exited 0"


def test_names_from_the_server_are_escaped() -> None:
    with server_with(running((A, "a\x1b[2J", "p\n1", 0)), output(b"exited 0")) as server:
        done = server.run("observe-latest")
    assert done.stderr.decode() == f"Observing a\\x1b[2J on p\\n1 ({A})\n"


def test_lines_come_as_they_come() -> None:
    seen = threading.Event()

    def answer(_command: Message) -> Answer:
        yield output(b"one")
        assert seen.wait(DEADLINE)
        yield output(b"exited 0")
        yield Success()

    with (
        Server(answer) as server,
        forked.start(
            "builder_client", "-r", server.address, "observe", A, stdout=subprocess.PIPE, env=environment()
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"1.000s one\n"
        seen.set()
        assert process.stdout.read() == b"1.000s exited 0\n"
        assert process.wait(DEADLINE) == 0


def test_json_is_one_object_a_line() -> None:
    info = running((A, "hello", "p1", 0))
    with server_with(info, output(b"one"), output(b"\xff"), output(b"signalled -7", None)) as server:
        done = server.run("observe", "3", "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert objects == [
        {"type": "build", "uuid": A, "job": "hello", "platform": "p1", "started": "1970-01-01T00:00:00Z"},
        {"type": "line", "uuid": A, "line": "one", "timestamp_ns": 10**9},
        {"type": "line", "uuid": A, "line": "\N{REPLACEMENT CHARACTER}", "line_base64": "/w==", "timestamp_ns": 10**9},
        {
            "type": "result",
            "uuid": A,
            "result": {"kind": "signalled", "signal": 9, "name": "KILL"},
            "text": "killed by signal KILL (9)",
            "timestamp_ns": None,
        },
    ]
    assert done.stderr == b""


# --- how it ends early ---


@pytest.mark.parametrize("arguments", [["observe", A], ["info"]])
def test_ctrl_c(arguments: list[str]) -> None:
    def answer(_command: Message) -> Answer:
        yield b""
        server.stopped.wait(DEADLINE)

    with (
        Server(answer) as server,
        forked.start(
            "builder_client", "-r", server.address, *arguments, stderr=subprocess.PIPE, env=environment()
        ) as process,
    ):
        assert server.commanded.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=DEADLINE)
        server.stopped.set()
    assert process.returncode == 130
    assert stderr.strip() == b""


def test_nobody_reads_the_output() -> None:
    closed = threading.Event()

    def answer(_command: Message) -> Answer:
        yield output(b"one")
        assert closed.wait(DEADLINE)
        for _ in range(1000):
            yield output(b"x" * 1000)
        yield Success()

    with (
        Server(answer) as server,
        forked.start(
            "builder_client",
            "-r",
            server.address,
            "observe",
            A,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"1.000s one\n"
        process.stdout.close()
        closed.set()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 141
