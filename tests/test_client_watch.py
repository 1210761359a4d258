"""builder-client, watching: queue, info with progress, watch as changes and as a live view on a real terminal."""

import contextlib
import json
import re
import signal
import subprocess
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import forked
import pytest
import trio
from client_harness import EMPTY, assert_one_line, run_client
from client_harness import Server as OldServer
from farm import Server, environment, start_server
from screens import Terminal, on_terminal
from scripted import build, do, schedule, take_job

from builder.messages import Execute, Success, Unschedule
from builder.model import Exited


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        yield running_server


async def run(server: Server, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return await trio.to_thread.run_sync(partial(run_client, "-r", server.remote, *arguments))


async def see(terminal: Terminal, *parts: str) -> str:
    """Wait until the screen shows all of these."""
    return await trio.to_thread.run_sync(lambda: terminal.wait_for(lambda text: all(part in text for part in parts)))


async def with_history(server: Server) -> None:
    """Have job a succeed once, and queue it again and two more."""
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.finish()
    await do(server, schedule("b", "p2"), Execute(name="a"))


async def test_queue_says_why(server: Server) -> None:
    await with_history(server)
    done = await run(server, "queue")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "p1 (no workers)"
    assert "no worker of this platform" in lines[2]
    found = json.loads((await run(server, "queue", "--json", "--platform", "p1")).stdout)
    (queue,) = found["queues"]
    (entry,) = queue.pop("jobs")
    workers = {"workers_waiting": 0, "workers_busy": 0, "workers_drained": 0, "workers_pressed": 0}
    assert queue == {"platform": "p1", "queued": 1, "asked": [], **workers}
    assert (entry["job"], entry["why"], entry["cause"], entry["likely_start"]) == ("a", "no-worker", "executed", None)
    unknown = await run(server, "queue", "--platform", "px")
    assert unknown.returncode == 3
    assert_one_line(unknown.stderr)


async def test_long_queues_are_for_pipes(server: Server) -> None:
    await do(server, *(schedule(f"job{number}", f"p{number % 2}") for number in range(120)))
    with on_terminal("-r", server.remote, "queue", size=(80, 200)) as terminal:
        text = await trio.to_thread.run_sync(
            terminal.wait_for, lambda text: text.count("no worker of this platform") >= 100
        )
    assert text.count("no worker of this platform") == 100
    assert text.count("(50 of 60)") == 2
    assert "queue | less" in text
    assert (await run(server, "queue")).stdout.count(b"no worker of this platform") == 120


def test_queue_of_an_old_server_is_the_order() -> None:
    def answer(_command: object) -> list[object]:
        return [EMPTY, Success()]

    with OldServer(answer) as old:  # type: ignore[arg-type]
        done = old.run("queue")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"Queues: no platforms\n"
    assert b"speaks only the classic protocol" in done.stderr


async def test_info_shows_progress(server: Server) -> None:
    await with_history(server)
    async with take_job(server):
        text = (await run(server, "info")).stdout.decode()
        assert "EXPECTED" in text
        (build,) = json.loads((await run(server, "info", "--json")).stdout)["running"]
        assert build["expected_ms"] is not None
        assert build["elapsed_ms"] >= 0


async def test_changes_as_json(server: Server) -> None:
    process = forked.start("builder_client", "-r", server.remote, "watch", "--json",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    with process:
        assert process.stdout

        def line() -> dict[str, object]:
            assert process.stdout
            found: dict[str, object] = json.loads(process.stdout.readline())
            return found

        try:
            assert await trio.to_thread.run_sync(line) == {"type": "look-again"}
            await do(server, schedule("a"))
            assert [(await trio.to_thread.run_sync(line))["type"] for _ in range(3)] == [
                "scheduled", "scheduled", "queued",
            ]  # fmt: skip
            async with take_job(server) as taken:
                await taken.finish()
            found = [await trio.to_thread.run_sync(line) for _ in range(3)]
            assert found[2] == {
                "type": "finished", "job": "a", "platform": "p1", "uuid": str(taken.uuid), "outcome": "succeeded",
            }  # fmt: skip
        finally:
            process.kill()


async def test_watch_without_a_terminal(server: Server) -> None:
    done = await run(server, "watch")
    assert done.returncode == 2
    assert_one_line(done.stderr)


# --- the live view -------------------------------------------------------------------------------------------------


async def test_the_live_view(server: Server) -> None:
    await with_history(server)
    with on_terminal("-r", server.remote, "watch") as terminal:
        await see(terminal, "Queues", "no worker of this platform", "succeeded")
        async with take_job(server) as first:
            await first.say(b"hello \x1b]0;evil\x07", b"second line")
            await see(terminal, ">  a", "second line", "hello")
            assert b"evil\x07" not in terminal.raw
            async with take_job(server, "p2") as second:
                await second.say(b"of the other")
                await see(terminal, "a", "b", "2 running")
                terminal.type(b"k")
                await see(terminal, ">  b", "of the other")
                terminal.type(b"\x1b[B")
                await see(terminal, ">  a", "second line")
                terminal.resize((70, 20))
                terminal.process.send_signal(signal.SIGWINCH)
                await see(terminal, "2 running", "q quits")
                await first.finish()
                await second.finish()
        await see(terminal, "0 running")
        terminal.type(b"q")
        assert await trio.to_thread.run_sync(terminal.wait) == 0
        assert terminal.modes == terminal.modes_before
        assert b"\x1b[?1049l" in terminal.raw
        assert b"\x1b[?25h" in terminal.raw


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
async def test_signals_restore_the_terminal(server: Server, number: signal.Signals, status: int) -> None:
    with on_terminal("-r", server.remote, "watch") as terminal:
        await see(terminal, "q quits")
        assert not terminal.modes & termios.ECHO
        terminal.process.send_signal(number)
        assert await trio.to_thread.run_sync(terminal.wait) == status
        assert terminal.modes & termios.ECHO
        terminal.read(0.1)
        assert b"\x1b[?1049l" in terminal.raw


async def test_a_server_that_starts_again(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        port = server.port
        with on_terminal("-r", server.remote, "watch") as terminal:
            await see(terminal, "0 jobs")
            await trio.to_thread.run_sync(server.terminate)
            await see(terminal, "trying again")
            async with start_server(tmp_path, f"--port={port}") as again:
                await do(again, schedule("a"))
                await see(terminal, "1 job", "no worker")
                assert "trying again" not in terminal.text
                terminal.type(b"q")
                assert await trio.to_thread.run_sync(terminal.wait) == 0


LONG = ("unikernel-dns-primary", "unikernel-dns-primary-git", "unikernel-dns-secondary-git")
PLATFORM = "debian-12-x86_64-opam-2.1-ocaml-{}"


def is_whole(columns: int, text: str) -> bool:
    """Return whether a screen of that width has been drawn to its end."""
    lines = text.split("\n")
    return (
        "no workers" in text
        and lines[-1].startswith("j/k")
        and any(line.startswith("── Running") and len(line) == columns for line in lines)
    )


async def test_builds_are_told_apart_on_any_terminal(server: Server) -> None:
    await do(server, *(schedule(name, PLATFORM.format(number)) for number, name in enumerate(LONG)))
    async with take_job(server, PLATFORM.format(0)), take_job(server, PLATFORM.format(1)):
        with on_terminal("-r", server.remote, "watch", size=(80, 24), COLUMNS="200") as terminal:
            for columns, lines in ((80, 24), (60, 20), (40, 16), (200, 50)):
                terminal.resize((columns, lines))
                terminal.process.send_signal(signal.SIGWINCH)
                text = await trio.to_thread.run_sync(terminal.wait_for, partial(is_whole, columns))
                rows = text[text.index("Running") : text.index("Queues")].splitlines()[1:-1]
                assert len({row[2:] for row in rows}) == 2, text
                assert all(row.endswith(" s") for row in rows), text
            terminal.type(b"jq")
            assert await trio.to_thread.run_sync(terminal.wait) == 0


@pytest.mark.parametrize("term", ["linux", "screen", "xterm", "vt100"])
async def test_without_colours_on_any_kind_of_terminal(server: Server, term: str) -> None:
    await with_history(server)
    with on_terminal("-r", server.remote, "watch", TERM=term, NO_COLOR="1") as terminal:
        await see(terminal, "no worker of this platform", "succeeded")
        terminal.type(b"\x1a")  # Ctrl-Z does not leave the screen behind
        terminal.type(b"q")
        assert await trio.to_thread.run_sync(terminal.wait) == 0
        assert not re.search(rb"\x1b\[(\d+;)*3\dm", terminal.raw)


@pytest.mark.parametrize("term", ["dumb", ""])
async def test_a_terminal_without_a_cursor(server: Server, term: str) -> None:
    with on_terminal("-r", server.remote, "watch", TERM=term) as terminal:
        assert await trio.to_thread.run_sync(terminal.wait) == 2
        terminal.wait_for(lambda text: "TERM is" in text and "--json" in text)
        assert b"\x1b" not in terminal.raw


async def test_a_terminal_that_is_hung_up(server: Server) -> None:
    with on_terminal("-r", server.remote, "watch") as terminal:
        await see(terminal, "q quits")
        terminal.process.send_signal(signal.SIGHUP)
        assert await trio.to_thread.run_sync(terminal.wait) == 129
        assert terminal.modes & termios.ECHO


@asynccontextmanager
async def tunnel(server: Server) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Have a way to the server that breaks when the function is called; it can be gone again at once."""
    scopes: set[trio.CancelScope] = set()

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await sink.aclose()

    async def carry(ours: trio.SocketStream) -> None:
        theirs = await trio.open_tcp_stream("127.0.0.1", server.port)
        with trio.CancelScope() as scope:
            scopes.add(scope)
            async with ours, theirs, trio.open_nursery() as nursery:
                nursery.start_soon(pump, ours, theirs)
                nursery.start_soon(pump, theirs, ours)

    def cut() -> None:
        for scope in scopes:
            scope.cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, carry, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", cut
        nursery.cancel_scope.cancel()


async def test_a_console_goes_on_after_a_break(server: Server) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken, tunnel(server) as (address, cut):
        await taken.say(b"first line")
        with on_terminal("-r", address, "watch") as terminal:
            await see(terminal, "first line")
            cut()
            await taken.say(b"second line")
            text = await see(terminal, "first line", "trying again in 1 s", "second line", "1 running")
            assert text.count("first line") == 1
            terminal.type(b"q")
            assert await trio.to_thread.run_sync(terminal.wait) == 0


async def test_an_unreachable_server_is_told_in_one_line(server: Server) -> None:
    await trio.to_thread.run_sync(server.terminate)
    with on_terminal("-r", server.remote, "watch") as terminal:
        assert await trio.to_thread.run_sync(terminal.wait) == 5
        assert terminal.modes & termios.ECHO
        terminal.wait_for(lambda text: "can't reach the server" in text)


# --- several consoles ----------------------------------------------------------------------------------------------


async def test_several_builds_are_observed_at_once(server: Server) -> None:
    await do(server, schedule("a"), schedule("longer", "p2"))
    async with take_job(server) as first, take_job(server, "p2") as second:
        arguments = ("observe", str(first.uuid), second.uuid.hex[:12], "--exit-status")
        with forked.start("builder_client", "-r", server.remote, *arguments,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        ) as process:  # fmt: skip
            assert process.stdout
            await first.say(b"one")
            lines = [await trio.to_thread.run_sync(process.stdout.readline)]
            await second.say(b"two")
            await first.finish(Exited(code=7))
            await second.say(b"three")
            await second.finish()
            rest, _ = await trio.to_thread.run_sync(process.communicate)
    assert process.returncode == 7
    texts = [line.decode() for line in [*lines, *rest.splitlines()]]
    assert sorted(line.partition(" | ")[0] for line in texts) == ["a@p1     "] * 2 + ["longer@p2"] * 3
    assert [line.split()[-1] for line in texts if line.startswith("longer")] == ["two", "three", "0"]


async def test_builds_of_one_name_are_told_apart_and_each_is_shown_once(server: Server) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as first:
        await do(server, Execute(name="a"))
        async with take_job(server) as second:
            for taken in (first, second):
                await taken.say(b"a line")
                await taken.finish()
            ids = (str(first.uuid), str(second.uuid), str(first.uuid))
            done = await run(server, "observe", *ids)
    lines = sorted(line.partition(" | ")[0] for line in done.stdout.decode().splitlines())
    assert lines == sorted(f"{str(taken.uuid)[:8]}" for taken in (first, second) for _ in range(2))


async def test_one_of_several_that_is_unknown(server: Server) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.finish()
    done = await run(server, "observe", str(taken.uuid), "00000000-0000-0000-0000-000000000001")
    assert done.returncode == 3
    assert b"exited 0" in done.stdout
    assert done.stderr == b"00000000: uuid not found\n"


async def test_one_that_is_named_twice(server: Server) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.say(b"one")
        await taken.finish()
    done = await run(server, "observe", str(taken.uuid), str(taken.uuid).upper())
    assert [line.split()[-1] for line in done.stdout.decode().splitlines()] == ["one", "0"]


# --- the next build ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def awaiting_next(server: Server, *arguments: str) -> Iterator[forked.Process]:
    """Have a client that waits for the next build of the job a, and has said so."""
    command = ["builder_client", f"--remote={server.remote}", "observe", "--follow-next", "a", *arguments]
    with forked.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stderr
        try:
            assert process.stderr.readline() == b"Waiting for the next build of a\n"
            yield process
        finally:
            process.kill()


async def test_the_next_build_is_followed_however_short_it_is(server: Server) -> None:
    await do(server, schedule("a"), schedule("b", "p2"))
    async with take_job(server) as before:
        with awaiting_next(server, "--exit-status") as process:
            await build(server, "p2")
            await before.finish()
            await do(server, Execute(name="a"))
            uuid, _ = await build(server, result=Exited(code=4), lines=[b"hello"])
            shown, told = await trio.to_thread.run_sync(process.communicate)
            status = process.returncode
    assert (status, told.decode()) == (4, f"Observing a on p1 ({uuid})\n")
    assert [line.split(None, 1)[1] for line in shown.splitlines()] == [b"hello", b"exited 4"]


async def test_a_build_that_began_during_a_break_is_the_next_one(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        await build(server)
        with awaiting_next(server, "--json") as process:
            await trio.to_thread.run_sync(server.terminate)
            async with start_server(tmp_path, f"--port={server.port}") as again:
                await do(again, Execute(name="a"))
                uuid, _ = await build(again)
                shown, _ = await trio.to_thread.run_sync(process.communicate)
    found = [json.loads(line) for line in shown.splitlines()]
    assert [each["type"] for each in found] == ["build", "result"]
    assert {each["uuid"] for each in found} == {str(uuid)}


async def test_a_job_that_goes_has_no_next_build(server: Server) -> None:
    await do(server, schedule("a"), schedule("b"))
    with awaiting_next(server) as process:
        await do(server, Unschedule(name="b"), Unschedule(name="a"))
        _, told = await trio.to_thread.run_sync(process.communicate)
        status = process.returncode
    assert (status, told) == (3, b"builder-client: unknown job a; there are no jobs: 'schedule' adds one\n")
