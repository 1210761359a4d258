"""The supervisor of a job: what it writes down, and jobs that try to reach, stop, fool or outlive it."""

import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve
from sandbox_runs import MIB, Driver, driver, give_up, in_turn, processes_with
from test_sandbox_hostile import SUBJECTS, daemons
from worker_program import DEADLINE

from builder.runtime import files
from builder_worker.sandbox import ExitStatus, JobLeft, Limits, SandboxError
from builder_worker.sandbox.processes import supervision
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Supervision

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what it does on other systems, the tests of jails show"
)


def shell(script: str) -> Launch:
    return Launch(command=("/bin/sh", "-c", script))


@asynccontextmanager
async def supervised(
    place: Path, launch: Launch, limits: Limits | None = None, *, grace: float = 0.0
) -> AsyncIterator[Supervision]:
    """A job that was started, and that is gone at the end."""
    with trio.fail_after(DEADLINE):
        one = Supervision.begin(place)
        try:
            one.start(launch, limits or Limits(), grace=grace)
            yield one
        finally:
            with trio.CancelScope(shield=True):
                await one.aclose()


def reap(one: Supervision) -> None:
    """Wait for the end of a supervisor that was left."""
    with suppress(ChildProcessError):  # it was waited for before
        os.waitpid(one.pid, 0)


async def read_all(one: Supervision) -> bytes:
    data = b""
    while more := await one.console.receive_some():
        data += more
    return data


async def read_until(one: Supervision, text: bytes) -> None:
    """Read what the job writes, while somebody else waits for its end."""
    data = b""
    while text not in data:
        data += await one.console.receive_some()


# --- what it writes down ------------------------------------------------------------------------------------------------


async def test_it_writes_down_the_output_its_times_and_the_end(tmp_path: Path) -> None:
    script = "printf 'a\\0b'; until grep -q a console; do :; done; sleep 0.05; echo c >&2; exit 3"
    async with supervised(tmp_path, evolve(shell(script), directory=tmp_path)) as one:
        await one.wait()
        assert one.conclude() == ExitStatus(code=3)
        assert await read_all(one) == b"a\0bc\n"
    assert (tmp_path / "console").read_bytes() == b"a\0bc\n"
    numbers = (tmp_path / "times").read_bytes()
    entries = [
        tuple(int.from_bytes(numbers[at + part : at + part + 8], "little") for part in (0, 8))
        for at in range(0, len(numbers), 16)
    ]
    assert [size for _, size in entries] == [3, 5]
    assert entries[1][0] - entries[0][0] >= 50_000_000
    status = json.loads((tmp_path / "status").read_text())
    assert status == {"code": 3, "signal": None, "stopped": None, "notes": "", "left": None}


async def test_output_byte_by_byte_makes_no_long_list_of_times(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do printf x; i=$((i+1)); done"
    async with supervised(tmp_path, shell(script)) as one:
        await one.wait()
    entries = (tmp_path / "times").stat().st_size // 16
    assert entries < 1000
    assert (tmp_path / "times").read_bytes()[-8:] == (2000).to_bytes(8, "little")


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with supervised(tmp_path, Launch(command=("no-such-program",))) as one:
        await one.wait()
        with pytest.raises(SandboxError, match="the sandbox did not start: no-such-program: No such file or directory"):
            one.conclude()


async def test_nobody_but_the_worker_may_open_what_it_keeps(tmp_path: Path) -> None:
    async with supervised(tmp_path, shell("true")) as one:
        await one.wait()
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_directory_of_any_depth_has_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with supervised(deep, shell("exit 4")) as one:
        await one.wait()
        assert one.conclude() == ExitStatus(code=4)


# --- a worker that goes -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def left(place: Path, script: str, *, grace: float = DEADLINE) -> AsyncIterator[Supervision]:
    """A job that was started and left, and whose supervisor has ended when the block has."""
    one = Supervision.begin(place)
    one.start(evolve(shell(script), directory=place), Limits(), grace=grace)
    one.leave()
    await one.aclose()
    with trio.fail_after(DEADLINE):
        yield one
        await trio.to_thread.run_sync(reap, one)


async def adopt(place: Path, one: Supervision) -> Supervision:
    return await Supervision.adopt(place, one.pid, Launch(command=()), Limits(), begun=0.0)


async def test_a_job_goes_on_without_a_worker_and_with_the_next_one(tmp_path: Path) -> None:
    script = "until [ -e go ]; do printf .; sleep 0.01; done; echo went on; exit 5"
    async with left(tmp_path, script) as one:
        other = await adopt(tmp_path, one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.wait)
            await read_until(other, b".")  # it is told by the supervisor, to the one who came
            (tmp_path / "go").touch()
        assert other.conclude() == ExitStatus(code=5)
        assert (await read_all(other)).endswith(b"went on\n")
        await other.aclose()


async def test_a_job_that_ended_without_a_worker_has_its_end_kept_for_the_next_one(tmp_path: Path) -> None:
    async with left(tmp_path, "echo done; exit 6") as one:
        while not (tmp_path / "status").exists():  # noqa: ASYNC110 - files tell nobody
            await trio.sleep(0.001)
        other = await adopt(tmp_path, one)
        await other.wait()
        assert (other.conclude(), await read_all(other)) == (ExitStatus(code=6), b"done\n")
        other.leave()  # it could not deliver it either
        await other.aclose()
        third = await adopt(tmp_path, one)
        await third.wait()
        assert third.conclude() == ExitStatus(code=6)
        await third.aclose()


async def test_a_worker_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        one = Supervision.begin(tmp_path)
        one.start(shell("exec sleep 1000"), Limits(), grace=DEADLINE)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(JobLeft):
                    await one.wait()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            one.leave()
        await one.aclose()
        other = await adopt(tmp_path, one)
        await other.aclose()  # who adopts a job can end it
        assert other.status is not None
        assert other.status.signal == signal.SIGKILL
        reap(one)


async def test_the_locks_of_a_job_are_its_supervisors_until_a_worker_is_done_with_it(tmp_path: Path) -> None:
    place, locked = tmp_path / "place", tmp_path / "locked"
    place.mkdir()
    locked.mkdir()
    with trio.fail_after(DEADLINE):
        one = Supervision.begin(place)
        lock = files.lock_directory(locked)
        assert lock is not None
        one.start(shell("exit 0"), Limits(), grace=DEADLINE, locks=[lock])
        os.close(lock)
        one.leave()
        await one.aclose()
        assert files.is_locked(locked)
        other = await adopt(place, one)
        (descriptor,) = other.locks
        await other.aclose()
        reap(one)
        assert files.is_locked(locked), "the worker that adopted it has the lock itself"
        os.close(descriptor)
        assert not files.is_locked(locked)


async def test_a_supervisor_that_has_gone_leaves_what_it_wrote_or_nothing(tmp_path: Path) -> None:
    async with left(tmp_path, "echo done; exit 6", grace=0) as one:
        await trio.to_thread.run_sync(reap, one)
        (tmp_path / "status").write_text('{"code": 6, "signal": null, "stopped": null, "notes": "", "left": null}')
        other = await adopt(tmp_path, one)
        await other.wait()
        assert other.conclude() == ExitStatus(code=6)
        await other.aclose()
        (tmp_path / "status").unlink()
        with pytest.raises(SandboxError, match="nothing is there of it any more"):
            await adopt(tmp_path, one)


async def test_a_supervisor_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "ANSWER_TIMEOUT", 0.1)
    async with left(tmp_path, "exec sleep 1000") as one:
        os.kill(one.pid, signal.SIGSTOP)
        with pytest.raises(SandboxError, match=r"has not answered for 0\.1 s"):
            await adopt(tmp_path, one)
        os.kill(one.pid, signal.SIGKILL)


CONNECT = """perl -e 'use Socket; $| = 1;
sub come { socket(S, AF_UNIX, SOCK_SEQPACKET, 0); connect(S, pack_sockaddr_un("socket")) or die $! }
sub speak { syswrite(S, q({"code": 0, "signal": null, "stopped": null, "notes": "", "left": null})); syswrite(S, "done") }
while (1) { WAY; print "connected\n"; select(undef, undef, undef, 0.02) }' &"""

WAYS = {
    "itself": "come; speak",
    "by a process that has ended": "if (fork == 0) { come; fork and exit; select(undef, undef, undef, 0.05); speak; sleep 1000 }",
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_is_not_taken_for_a_worker_that_came_back(tmp_path: Path, way: str) -> None:
    """It is the same user's; if it were, it could run without a worker for ever. It tries before its worker goes and after."""
    script = CONNECT.replace("WAY", WAYS[way])
    async with supervised(tmp_path, evolve(shell(f"{script}\nexec sleep 1000"), directory=tmp_path), grace=0.3) as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.wait)
            await read_until(one, b"connected\nconnected")
            nursery.cancel_scope.cancel()
        one.leave()
        await trio.to_thread.run_sync(reap, one)
    assert json.loads((tmp_path / "status").read_text())["signal"] == signal.SIGKILL


# --- jobs against it ----------------------------------------------------------------------------------------------------

ALL = [*SUBJECTS, ("none", "root"), ("none", "user")]
DIED = "the process that watched over the job was killed"


@pytest.fixture(scope="module", params=in_turn(ALL), ids="-".join)
def subject(request: pytest.FixtureRequest) -> Iterator[Driver]:
    backend, privilege = request.param
    with driver(backend, privilege, first="impatient") as started:
        yield started


FIND = "find / -xdev -type s -name socket 2>/dev/null | grep builder\n"
REACH = r"""
perl -e 'use Socket; for (@ARGV) { socket(S, AF_UNIX, SOCK_SEQPACKET, 0); no warnings;
  connect(S, pack_sockaddr_un($_)) and syswrite(S, q({"code": 0})) and syswrite(S, "end") }' \
  ../../socket /proc/*/cwd/socket /proc/*/fd/0 2>/dev/null
exit 3
"""
FOOL = r"""
for path in /proc/[0-9]*/fd/[012]; do
  printf 'memory.events oom_kill 1
{"code": 0, "signal": null, "stopped": null, "notes": "", "left": null}' >$path
done 2>/dev/null
exit 3
"""


def test_a_job_that_looks_for_its_supervisor_finds_nothing_to_talk_to(subject: Driver) -> None:
    # without a sandbox, the socket is where it is, and whoever connects to it is not listened to
    outcome = subject.run(REACH if subject.backend == "none" else FIND + REACH)
    assert (outcome.code, outcome.exceeded, outcome.output) == (3, None, ""), outcome


def test_a_job_that_says_how_it_ended_is_not_believed(subject: Driver) -> None:
    # without a sandbox, it would write to every program of the machine
    script = FOOL.replace("/proc/[0-9]*/fd/[012]", "/proc/$PPID/fd/[3-9]*") if subject.backend == "none" else FOOL
    outcome = subject.run(script, limits={"memory": 2**30} if "memory" in subject.check["limits"] else {})
    assert outcome.code == 3, outcome


def test_a_job_that_stops_all_that_it_can_ends_in_time(subject: Driver) -> None:
    what = "$PPID" if subject.backend == "none" else "-1"
    outcome = subject.run(f"kill -STOP {what} 1; kill -STOP $$", limits={"timeout": 0.5})
    assert outcome.exceeded == "time limit of 0.5 s exceeded", outcome


def test_a_job_whose_supervisor_is_killed_is_gone_and_the_worker_goes_on(subject: Driver) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    number = subject.begin(daemons(mark) + "echo ready; while :; do sleep 1000; done", announce="ready")
    assert processes_with(mark)
    for pid in supervisors(subject):
        os.kill(pid, signal.SIGKILL)
    outcome = subject.outcome()
    assert (outcome.signal, outcome.exceeded) == (9, DIED), outcome
    assert not processes_with(mark)
    assert subject.run("exit 4").code == 4
    assert number


OPENS = "echo 1 >/dev/stdout; echo 2 >/dev/stderr; echo 3 | tee /dev/stderr >/dev/null; cat /dev/stdin; echo 4 >/proc/self/fd/1"


def test_what_a_job_is_handed_it_can_open_again(subject: Driver) -> None:
    outcome = subject.run(OPENS)
    assert (outcome.code, outcome.output.split()) == (0, ["1", "2", "3", "4"]), outcome


def test_a_job_that_goes_on_without_a_process_that_was_killed_for_its_memory_is_no_success(subject: Driver) -> None:
    if "memory" not in subject.check["limits"]:
        give_up(subject.backend, f"no limit of memory: {subject.check['notes']}")
    outcome = subject.run("perl -e 'push @a, q(x) x 1048576 while 1'; exit 0", limits={"memory": 64 * MIB})
    assert outcome.exceeded == "out of memory (limit 64 MiB)", outcome


def test_a_job_that_is_killed_at_once_is_told_as_killed(subject: Driver) -> None:
    for _ in range(3):
        outcome = subject.run("exec sleep 1000", end="kill")
        assert (outcome.signal, outcome.error) == (9, None), outcome


def supervisors(subject: Driver) -> list[int]:
    """Return those of a driver's jobs."""
    found = processes_with(f"builder-{subject.process.pid}-")
    return [pid for pid in found if b"/supervisor." in Path(f"/proc/{pid}/cmdline").read_bytes()]
