"""What destroys asks on a terminal, and nowhere else."""

import subprocess
from pathlib import Path

import pytest
from client_harness import DEADLINE, Server, client_argv, environment, run_on_terminal, succeed

from builder.messages import DropPlatform, Message, Unschedule

COMMANDS: list[tuple[list[str], Message]] = [
    (["unschedule", "hel\x1blo"], Unschedule(name="hel\x1blo")),
    (["drop-platform", "p1"], DropPlatform(platform="p1")),
]


@pytest.mark.parametrize(("arguments", "sent"), COMMANDS)
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [(b"y\n", True), (b"Yes\n", True), (b"n\n", False), (b"\n", False), (b"\x04", False), (b"\xff\n", False)],
)
def test_a_person_is_asked(arguments: list[str], sent: Message, typed: bytes, *, wanted: bool) -> None:
    with Server(succeed) as server:
        status, shown = run_on_terminal(client_argv("-r", server.address, *arguments), environment(), typed)
    assert server.seen == ([sent] if wanted else [])
    assert status == (0 if wanted else 1)
    assert f"{server.address}? [y/N] ".encode() in shown
    assert b"\x1b" not in shown
    line = b"builder-client: nothing was changed\n"
    assert shown.endswith(line) is not wanted
    if not typed.endswith(b"\n"):
        assert shown.endswith(b"\n" + line)


@pytest.mark.parametrize(("arguments", "sent"), COMMANDS)
@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_yes_is_an_answer(arguments: list[str], sent: Message, option: str) -> None:
    with Server(succeed) as server:
        status, shown = run_on_terminal(client_argv("-r", server.address, *arguments, option), environment(), b"")
    assert (status, server.seen) == (0, [sent])
    assert b"[y/N]" not in shown


def test_so_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "builder").mkdir()
    (tmp_path / "builder" / "client.toml").write_text("yes = true")
    with Server(succeed) as server:
        argv = client_argv("-r", server.address, "unschedule", "hello")
        status, shown = run_on_terminal(argv, environment(XDG_CONFIG_HOME=str(tmp_path)), b"")
    assert (status, shown, server.seen) == (0, b"", [Unschedule(name="hello")])


@pytest.mark.parametrize("closed", ["", "0<&-", "2>&-"])
def test_scripts_are_not_asked(closed: str) -> None:
    with Server(succeed) as server:
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$@" {closed}', "sh", *client_argv("-r", server.address, "unschedule", "hello")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(),
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.seen == [Unschedule(name="hello")]
