"""The operator's commands around each job."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import eventually
from sandbox_runs import processes_with
from worker_program import UUID_1, Finished, interrupt, open_server, run_script, run_worker, wait_gone
from worker_sandboxes import need, reachable_directory

from builder.model import Aborted, Exited


async def _run(place: Path, script: bytes, *arguments: str) -> Finished:
    return await run_script(place, script, *arguments)


@pytest.fixture
def moment() -> Iterator[str]:
    """An argument of ``sleep`` that no other process has. What it is given to is killed at the end."""
    text = f"0.{secrets.randbelow(10**12):012}"
    yield text
    for pid in processes_with(text):
        os.kill(pid, signal.SIGKILL)


async def test_they_run_before_and_after_the_job(tmp_path: Path) -> None:
    """What the first makes the job finds, what the last makes is delivered, what both say is in the console."""
    prepare = 'echo begin; echo made > "$BUILDER_WORK"/input'
    finish = 'printf "%s" "$BUILDER_RESULT" > "$BUILDER_WORK/result"; printf "end\\033\\n"; echo end >&2'
    finished = await _run(tmp_path, b"cat input; rm input; exit 3", "--prepare", prepare, "--finish", finish)
    assert finished.lines == [
        b"builder-worker: prepare: begin",
        b"made",
        b"builder-worker: finish: end\\x1b",
        b"builder-worker: finish: end",
        b"builder-worker: 1 artifact, 8 bytes",
    ]
    assert finished.result == Exited(code=3)
    assert finished.artifacts == {b"result": b"exited 3"}


async def test_they_are_told_which_job_it_is_and_have_the_worker_s_environment(tmp_path: Path) -> None:
    prepare = 'echo "$BUILDER_JOB, $BUILDER_PLATFORM, $BUILDER_UUID, $SECRET, ${BUILDER_RESULT-none}"; pwd'
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--prepare", prepare, environment={"SECRET": "s3cret"}),
        server.accept() as connection,
    ):
        await connection.hand_out(b"echo ${SECRET-none}", name="a $(b) `c`\x1b", uuid=UUID_1)
        finished = await connection.finish()
    assert finished.remarks[:2] == [f"prepare: a $(b) `c`\\x1b, p1, {UUID_1}, s3cret, none", "prepare: /"]
    assert finished.own_lines == [b"none"]


async def test_without_the_first_there_is_no_job_but_the_last_one_runs(tmp_path: Path) -> None:
    finish = f'echo "$BUILDER_RESULT" > {tmp_path}/finished'
    finished = await _run(tmp_path, b"echo job", "--prepare", "echo no; exit 9", "--finish", finish)
    assert finished.result == Aborted(message="the prepare hook failed: exited 9")
    assert finished.remarks == ["prepare: no", "0 artifacts, 0 bytes"]
    assert finished.own_lines == []
    assert (tmp_path / "finished").read_text() == "execution aborted: the prepare hook failed: exited 9\n"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("exit 2", "exited 2"),
        ("kill -9 $$", "killed by signal KILL (9)"),
        ("sleep 1000", "time limit of 0.3 s exceeded"),
        ("setsid sleep 1000 MOMENT & exec sleep 1000", "time limit of 0.3 s exceeded"),
        ("exec yes", "more than 65536 bytes of console output"),
    ],
)
async def test_the_failure_of_the_last_is_the_result_and_the_files_are_delivered(
    tmp_path: Path, finish: str, reason: str, moment: str
) -> None:
    hook = ("--finish", finish.replace("MOMENT", moment), "--hook-timeout", "0.3" if "sleep" in finish else "1h")
    finished = await _run(tmp_path, b"touch file; exit 4", *hook)
    assert finished.result == Aborted(message=f"the finish hook failed: {reason} (the job before it: exited 4)")
    assert list(finished.artifacts) == [b"file"]


@pytest.mark.parametrize("daemon", ["sleep 1000 MOMENT &", "setsid sleep 1000 MOMENT &", "sleep 1000 MOMENT & exit 3"])
async def test_what_a_hook_leaves_behind_delays_nothing_and_stays(tmp_path: Path, moment: str, daemon: str) -> None:
    """Though it had no time to leave the hook's session."""
    finished = await _run(tmp_path, b"true", "--finish", daemon.replace("MOMENT", moment))
    assert (finished.result == Exited(code=0)) is ("exit" not in daemon)
    await eventually(lambda: processes_with(moment))


async def test_a_hook_that_is_ended_is_killed_with_its_session(tmp_path: Path, moment: str) -> None:
    own_group = f"perl -e 'setpgrp; open F, q(>{tmp_path}/begun); exec qw(sleep 1000 {moment})' &"
    hook = f"sleep 1000 {moment} & {own_group} until [ -e {tmp_path}/begun ]; do :; done; exec yes"
    finished = await _run(tmp_path, b"true", "--prepare", hook)
    assert finished.result == Aborted(message="the prepare hook failed: more than 65536 bytes of console output")
    assert not processes_with(moment)


async def test_what_a_hook_leaves_behind_is_not_taken_for_the_job_s(tmp_path: Path, moment: str) -> None:
    """Not even when the worker looks for what is left of a job that has killed its supervisor."""
    moved = f"setsid sh -c 'echo >{tmp_path}/moved; exec sleep 1000 {moment}' &"
    prepare = f"{moved} until [ -e {tmp_path}/moved ]; do sleep 0.01; done"
    left = f"(setsid sleep 1000 job-{moment} &); kill -9 $PPID; sleep 1000"
    finished = await _run(tmp_path, left.encode(), "--prepare", prepare)
    assert finished.result == Aborted(message="the process that watched over the job was killed")
    assert len(processes_with(moment)) == 1
    assert not processes_with(f"job-{moment}")


@pytest.mark.parametrize("end", ["server", "signal", "silence"])
async def test_the_last_runs_when_the_job_is_killed_and_finds_no_process_of_it(tmp_path: Path, end: str) -> None:
    finish = f'kill -0 $(cat "$BUILDER_WORK/pid") || echo "$BUILDER_RESULT" > {tmp_path}/finished'
    arguments = ("--finish", finish, *(("--max-silent=0.2",) if end == "silence" else ()))
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, *arguments) as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"echo $$ | tee pid; exec sleep 1000")
            pid = int(await connection.read_line())
            if end == "signal":
                interrupt(worker)
                await worker.wait()
            elif end == "silence":
                assert (await connection.finish()).result == Aborted(message="no output for 0.2 s")
        assert await worker.wait() == {"server": 5, "signal": 143, "silence": 0}[end]
        await wait_gone(pid)
    result = "no output for 0.2 s" if end == "silence" else "interrupted"
    assert (tmp_path / "finished").read_text() == f"execution aborted: {result}\n"
    assert not list((tmp_path / "work").iterdir())


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


async def test_they_run_outside_of_the_sandbox(place: Path) -> None:
    need("bubblewrap")
    arguments = ("--sandbox=bubblewrap", "--prepare", f'id -u; ls {place}; cp /etc/hostname "$BUILDER_WORK/host"')
    finished = await _run(place, f"id -u; ls {place}; hostname; test -s host".encode(), *arguments)
    assert finished.result == Exited(code=0), finished
    assert "prepare: worker.log" in finished.remarks
    assert finished.own_lines[0] == b"1000"
    assert finished.own_lines[-1] == b"builder"
