"""The Tab key in real shells: names from the server, silence without one, and nothing that a shell could run."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from client_harness import DEADLINE, closed_port
from farm import Server, environment, start_server
from operators import need
from screens import Terminal, terminal_of
from scripted import do, schedule, take_job

from builder.endpoint import Servers
from builder_client import completion

PROGRAMS = Path(sys.executable).parent
"""Where builder-client is, as a shell finds it."""

UNSAFE = ("hello $(touch ran)", "hello;touch ran", "hello`touch ran`", "hello'", 'hello"', "hello two", "hello\\")

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(builder-client completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source <(builder-client completion zsh)"),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        names = ("hello:one", "hello.two", "name@x", *UNSAFE)
        await do(running_server, *(schedule(name) for name in names))
        yield running_server


@contextmanager
def shell(name: str, folder: Path, remote: str) -> Iterator[Terminal]:
    """Run a shell that completes our commands, in a folder."""
    need("shells", [name])
    argv, setup = SHELLS[name]
    with terminal_of(*argv, PS1="> ", HOME=str(folder), BUILDER_REMOTE=remote, PATH=_path()) as terminal:
        terminal.wait_for(lambda text: ">" in text)
        terminal.type(f"cd {folder}; {setup}; clear; echo is-''ready\n".encode())
        terminal.wait_for(lambda text: "is-ready" in text)
        yield terminal


def _path() -> str:
    return f"{PROGRAMS}:{environment()['PATH']}"


@pytest.mark.parametrize("name", SHELLS)
async def test_names_are_completed(server: Server, name: str, tmp_path: Path) -> None:
    def type_and_see() -> None:
        with shell(name, tmp_path, server.remote) as terminal:
            for typed, shown in (
                ("builder-client execute hello:\t", "execute hello:one "),
                ("builder-client execute hello.\t", "execute hello.two "),
                ("builder-client execute name@\t", "execute name@x "),
                (f"builder-client -r {server.remote} execute na\t", f"-r {server.remote} execute name@x "),
                ("builder-client unsch\t", "builder-client unschedule "),
            ):
                terminal.type(typed.encode() + b"#")
                terminal.wait_for(lambda text, shown=shown: f"{shown}#" in text)  # type: ignore[misc]
                terminal.type(b"\x15")  # Ctrl-U: begin a new line

    await trio.to_thread.run_sync(type_and_see)
    assert not (tmp_path / "ran").exists()


async def test_fish(server: Server, tmp_path: Path) -> None:
    need("shells", ["fish"])
    code = "builder-client completion fish | source; complete -C 'builder-client execute hello'"
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            ["fish", "--no-config", "-c", code],
            env=environment(BUILDER_REMOTE=server.remote, HOME=str(tmp_path), PATH=_path()),
            cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=True,
        )
    )  # fmt: skip
    assert done.stdout.split() == [b"hello.two", b"hello:one"]
    assert not (tmp_path / "ran").exists()


def test_without_a_server_nothing_is_said(tmp_path: Path) -> None:
    with closed_port() as port, shell("bash", tmp_path, f"127.0.0.1:{port}") as terminal:
        terminal.type(b"builder-client execute hel\t#")
        text = terminal.wait_for(lambda text: "execute hel#" in text)
    assert text.rstrip().endswith("builder-client execute hel#")


async def test_what_runs_is_completed_by_its_jobs_too(server: Server) -> None:
    async with take_job(server) as taken:
        found = await trio.to_thread.run_sync(
            completion.complete, Servers.of(server.remote, {}), completion.running_jobs, ""
        )
        await taken.finish()
    assert found == sorted([str(taken.uuid), taken.job.name])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("edit x --after hello.", b"hello.two"), ("edit x --time-zone Europe/Cop", b"Europe/Copenhagen")],
)
async def test_values_of_options_are_completed(server: Server, typed: str, expected: bytes) -> None:
    *_, last = typed.split()
    env = environment(
        BUILDER_REMOTE=server.remote,
        _BUILDER_CLIENT_COMPLETE="fish_complete",
        COMP_WORDS=f"builder-client {typed}",
        COMP_CWORD=last,
    )
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [PROGRAMS / "builder-client"], env=env, capture_output=True, timeout=DEADLINE, check=True
        )
    )
    assert done.stdout == b"plain," + expected + b"\n"


async def test_builds_are_completed_finished_ones_too(server: Server) -> None:
    async with take_job(server) as taken:
        await taken.finish()
    where = Servers.of(server.remote, {})

    def found(source: completion.Source, begin: str) -> list[str]:
        return completion.complete(where, source, begin)

    assert await trio.to_thread.run_sync(found, completion.builds, "") == [str(taken.uuid)]
    assert await trio.to_thread.run_sync(found, completion.running, "") == []
    assert await trio.to_thread.run_sync(found, completion.platforms, "") == ["p1"]
    assert await trio.to_thread.run_sync(found, completion.jobs, "hello.") == ["hello.two"]
