"""builder-worker as a process, over real sockets: what it does with a job."""

import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio
from worker_program import ROOT, UUID_1, open_server, run_script, run_worker, wait_gone
from worker_sandboxes import builder_worker

from builder.codec import decode
from builder.messages import Hello, JobSchedule, Output
from builder.model import Aborted, Exited, Signalled, wire_signal
from builder_worker.console import MAX_LINE

TRANSCRIPT = [
    record
    for record in map(json.loads, (ROOT / "tests/data/transcripts.jsonl").read_text().splitlines())
    if record["session"] == "worker" and "hex" in record
]


def _frame(record: dict[str, str]) -> bytes:
    return bytes.fromhex(record["header"] + record["hex"])


def test_the_transcript_is_there() -> None:
    assert [record["dir"] for record in TRANSCRIPT] == ["c2s", "s2c", "c2s", "s2c", "c2s", "c2s", "c2s"]


async def test_it_sends_what_the_original_sent(tmp_path: Path) -> None:
    """Byte for byte, but for the line that our worker adds at the end."""
    schedule = decode(bytes.fromhex(TRANSCRIPT[3]["hex"]))
    assert isinstance(schedule, JobSchedule)
    ours = Output(uuid=schedule.uuid, line=b"builder-worker: 2 artifacts, 5 bytes")
    expected = [bytes.fromhex(record["hex"]) for record in TRANSCRIPT if record["dir"] == "c2s"]
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:

            async def receive_frame() -> bytes:
                header = await _receive_exactly(connection.stream, 8)
                return await _receive_exactly(connection.stream, int.from_bytes(header, "big"))

            got = [await receive_frame()]
            await connection.stream.send_all(_frame(TRANSCRIPT[1]))
            got.append(await receive_frame())
            await connection.stream.send_all(_frame(TRANSCRIPT[3]))
            got += [await receive_frame() for _ in range(4)]
        assert await worker.wait() == 0, worker.log
    assert decode(got.pop(4)) == ours
    assert got == expected


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more, "the worker closed the connection"
        data += more
    return data


async def test_a_script_without_an_interpreter_line_is_run_by_sh(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"echo $0; exit 3\n")
    assert finished.result == Exited(code=3)
    assert finished.own_lines[0].endswith(b"/.builder-script")
    assert finished.artifacts == {}
    assert finished.remarks == ["0 artifacts, 0 bytes"]


async def test_a_script_is_run_by_its_interpreter_line(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, f"#!{sys.executable} -S\nprint(6 * 7)\n".encode())
    assert finished.own_lines == [b"42"]
    assert finished.result == Exited(code=0)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (
            b"#!/no/such/shell\n",
            127,
            b"builder-worker: the first line of the script names /no/such/shell, which is no program",
        ),
        (b"#!/etc\n", 126, b"Permission denied"),
    ],
)
async def test_an_interpreter_that_can_not_run_is_told_in_the_console(
    tmp_path: Path, script: bytes, code: int, reason: bytes
) -> None:
    finished = await run_script(tmp_path, script)
    assert finished.result == Exited(code=code)
    assert reason in b"\n".join(finished.lines)


async def test_stdout_and_stderr_arrive_in_order_and_unaltered(tmp_path: Path) -> None:
    script = b"for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf '\\377\\000\\r\\n\\nend'"
    finished = await run_script(tmp_path, script)
    expected = [b"out 1", b"err 1", b"out 2", b"err 2", b"out 3", b"err 3", b"\xff\0\r", b"", b"end"]
    assert finished.own_lines == expected


async def test_the_end_by_a_signal_has_its_number_on_the_wire(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"kill -TERM $$; sleep 1000")
    assert finished.result == Signalled(signal=wire_signal(signal.SIGTERM)) == Signalled(signal=-11)


async def test_the_job_gets_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    script = b"env; ls -l /proc/self/fd | wc -l; cat; umask; ps -o sid= -p $$ | tr -d ' '; echo $$; ls -A; exit $#"
    environment = {"SECRET": "s3cret", "http_proxy": "http://proxy:1", "KEEP": "kept"}
    async with open_server() as server:
        arguments = ("-r", server.address, "--env", "KEEP", "--env", "NEW=1=2")
        async with run_worker(tmp_path, *arguments, environment=environment) as worker, server.accept() as connection:
            await connection.hand_out(script, name="a\nb", uuid=UUID_1)
            finished = await connection.finish()
            assert connection.platform == "p1"
            assert b"s3cret" not in b"".join(finished.lines), worker.log
    variables = dict(line.split(b"=", 1) for line in finished.own_lines if b"=" in line)
    assert variables.pop(b"PWD").startswith(os.fsencode(tmp_path))
    del variables[b"PATH"]
    variables.pop(b"_", None)
    variables.pop(b"SHLVL", None)
    assert variables.pop(b"BUILDER_MARK").startswith(b"builder-")
    assert variables == {
        b"HOME": b"/nonexistent",
        b"LANG": b"C.UTF-8",
        b"TZ": b"UTC",
        b"http_proxy": b"http://proxy:1",
        b"KEEP": b"kept",
        b"NEW": b"1=2",
        b"BUILDER_JOB": b"a\\nb",
        b"BUILDER_PLATFORM": b"p1",
        b"BUILDER_UUID": str(UUID_1).encode(),
    }
    descriptors, umask, session, process, script_name = finished.own_lines[-5:]
    assert descriptors == b"5"  # 0, 1, 2, the directory that ls reads, and "total"
    assert umask == b"0022"
    assert session == process
    assert script_name == b".builder-script"


async def test_a_worker_makes_no_core_dump_and_its_job_has_the_limit_of_all_jobs(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(b"grep core /proc/self/limits")
        soft, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_CORE)
        finished = await connection.finish()
    assert soft == min(1, hard) if hard >= 0 else soft == 1
    assert finished.own_lines[0].split()[4:6] == ([b"1", b"1"] if hard else [b"0", b"0"])


async def test_a_line_comes_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """The job waits for a file that appears when its line has been seen."""
    async with open_server() as server, run_worker(tmp_path, "-r", server.address), server.accept() as connection:
        await connection.hand_out(b"pwd; while ! test -e go; do sleep 0.01; done; echo gone")
        directory = await connection.read_line()
        Path(os.fsdecode(directory), "go").touch()
        finished = await connection.finish()
        assert finished.own_lines == [b"gone"]


async def test_output_without_a_newline_costs_no_memory(tmp_path: Path) -> None:
    size = 200 * 1024 * 1024
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(b"head -c %d /dev/zero" % size)
        received = 0
        while isinstance(message := await connection.channel.receive(), Output):
            assert len(message.line) <= MAX_LINE
            received += len(message.line)
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        await connection.channel.receive_body()
    (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    assert received == size + len("builder-worker: 0 artifacts, 0 bytes")
    assert peak < 100 * 1024, f"{peak} KiB"


async def test_300_000_lines_arrive(tmp_path: Path) -> None:
    count = 300_000
    async with open_server() as server, run_worker(tmp_path, "-r", server.address), server.accept() as connection:
        await connection.hand_out(b"seq 1 %d" % count)
        # decoding them all would take the test longer than the worker takes; the length is at the frame's begin,
        # and the line after 32 bytes of headers and uuid
        data, start = bytearray(), 0
        lines: list[int] = []
        while len(lines) < count:
            data += await connection.stream.receive_some(1024 * 1024)
            while len(lines) < count and len(data) >= start + 8:
                end = start + 8 + int.from_bytes(data[start : start + 8], "big")
                if len(data) < end:
                    break
                lines.append(int(data[start + 32 : end]))
                start = end
    assert lines == list(range(1, count + 1))


async def test_a_slow_server_slows_nothing_but_the_sending(tmp_path: Path) -> None:
    """The job ends while the server does not read, and the worker's memory does not grow with what it wrote."""
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            await connection.hand_out(b"echo $$; exec head -c 50000000 /dev/zero")
            pid = int(await connection.read_line())
            before = _memory(worker.process.pid, "VmRSS")
            await wait_gone(pid)
            finished = await connection.finish(keep=False)
            assert _memory(worker.process.pid, "VmHWM") - before < 20_000
            assert finished.result == Exited(code=0)
        assert await worker.wait() == 0, worker.log


def _memory(pid: int, what: str) -> int:
    """Return a figure of a process's memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


async def test_large_artifacts_cost_no_memory(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(b"truncate -s 300M large; i=0; while test $i -lt 500; do : > f$i; i=$((i+1)); done")
        while isinstance(await connection.channel.receive(), Output):
            pass
        received = 0
        while data := await connection.channel.receive_body():
            received += len(data)
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    assert received > 300 * 1024 * 1024
    assert peak < 100 * 1024, f"{peak} KiB"


async def test_a_time_limit_ends_the_job(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"echo kept > log; trap '' TERM; sleep 1000 & sleep 1000", "--timeout", "0.3")
    assert finished.result == Aborted(message="time limit of 0.3 s exceeded")
    assert finished.artifacts == {b"log": b"kept\n"}


async def test_what_the_job_leaves_is_delivered_in_the_order_of_the_bytes(tmp_path: Path) -> None:
    script = (
        b"mkdir a; echo 1 > a/x; echo 2 > a-b; echo 3 > a0; echo 4 > B; mkdir -p .d/e; echo 5 > .d/e/f; echo 6 > .g"
    )
    finished = await run_script(tmp_path, script)
    assert finished.order == [b"B", b"a-b", b"a/x", b"a0"]
    assert finished.remarks == ["4 artifacts, 8 bytes"]


async def test_dotfiles_are_delivered_on_demand(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"mkdir .d; echo 5 > .d/f; echo 6 > .g", "--dotfiles")
    assert finished.artifacts == {b".d/f": b"5\n", b".g": b"6\n"}


async def test_what_a_killed_worker_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    async with open_server() as server:
        async with run_worker(tmp_path, "-r", server.address) as worker, server.accept() as connection:
            await connection.hand_out(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
            worker.process.kill()
            await wait_gone(pid)
        (left,) = (tmp_path / "work").iterdir()
        async with run_worker(tmp_path, "-r", server.address) as worker, server.accept() as connection:
            await connection.channel.receive_expected(Hello)
            assert not left.exists()
            assert f"removed the work directory {left}" in worker.log


async def test_a_directory_that_can_not_be_made_is_the_jobs_result_and_the_workers_failure(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.greet()
            (tmp_path / "work").rename(tmp_path / "before")  # what is ready for the job is in it
            (tmp_path / "work").touch()
            await connection.hand_out(b"echo never run")
            finished = await connection.finish()
        assert isinstance(finished.result, Aborted)
        assert "work must be a directory" in finished.result.message
        assert finished.own_lines == []
        assert await worker.wait() == 7, worker.log


def test_help_says_when_jobs_are_not_confined() -> None:
    done = builder_worker("--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert text.startswith("Usage: builder-worker [OPTIONS] PLATFORM")
    for part in (
        "WITHOUT A SANDBOX THE JOB IS NOT CONFINED",
        "jail or a container",
        "BUILDER_REMOTE",
        "Exit status",
        "130, 143",
    ):
        assert part in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a/b",),
        ("p1", "p2"),
        ("p1", "-r", "nonsense:port"),
        ("p1", "--no-such-option"),
        ("p1", "--env", "NOT_SET_AT_ALL"),
        ("p1", "--timeout", "0"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = builder_worker(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("builder-worker: ")


def test_a_work_directory_that_is_missing_is_told_before_any_job_is_taken() -> None:
    done = builder_worker("p1", "--work-dir", "/dev/null/dir")
    assert done.returncode == 7
    assert "--work-dir" in done.stderr


def test_the_platform_may_come_after_options_and_be_named_like_a_command(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"  # bound, but nobody listens
        for arguments in (("-r", address, "p1"), ("p1", "-r", address), ("work", "-r", address, "work")):
            done = builder_worker(*arguments, "--sandbox=none", "-q", "--work-dir", tmp_path / "work")
            assert done.returncode == 3
            assert done.stderr == f"builder-worker: cannot reach {address}: Connection refused\n"
