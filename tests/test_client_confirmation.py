"""What destroys asks on a terminal, and nowhere else."""

import subprocess
from pathlib import Path

import click
import pytest
from client_harness import DEADLINE, Server, client_argv, closed_port, environment, run_on_terminal, succeed

from builder.messages import DropPlatform, Message, Unschedule
from builder_client.registry import SECTIONS, load

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
        status, shown = run_on_terminal(["-r", server.address, *arguments], environment(), typed)
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
        status, shown = run_on_terminal(["-r", server.address, *arguments, option], environment(), b"")
    assert (status, server.seen) == (0, [sent])
    assert b"[y/N]" not in shown


def test_so_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "builder").mkdir()
    (tmp_path / "builder" / "client.toml").write_text("yes = true")
    with Server(succeed) as server:
        argv = ["-r", server.address, "unschedule", "hello"]
        status, shown = run_on_terminal(argv, environment(XDG_CONFIG_HOME=str(tmp_path)), b"")
    assert (status, shown, server.seen) == (0, b"", [Unschedule(name="hello")])


DESTROYING = {
    "cancel": ("hello",),
    "dequeue": ("hello",),
    "drop-platform": ("p1",),
    "drop-upload": ("323b",),
    "unschedule": ("hello",),
}
"""The commands that destroy something, with arguments."""

LOOKING = {"apply", "export"}
"""Those that look first, and ask if there is something to lose: their own tests show that."""


def test_what_destroys_is_what_has_the_option() -> None:
    asking = {
        name
        for section in SECTIONS.values()
        for name in section
        if any(parameter.name == "yes" for parameter in load(name).params)
    }
    assert asking == {*DESTROYING, *LOOKING}


@pytest.mark.parametrize("name", DESTROYING)
def test_all_of_them_ask_before_anything_is_sent(name: str) -> None:
    help_text = " ".join(
        (load(name).help or "").split()
        + [option.help for option in load(name).params if isinstance(option, click.Option) and option.help]
    )
    assert "n a terminal it asks before" in help_text
    with closed_port() as port:
        argv = ["-r", f"127.0.0.1:{port}", name, *DESTROYING[name]]
        status, shown = run_on_terminal(argv, environment(), b"n\n")
        assert (status, shown.count(b"[y/N]")) == (1, 1)
        assert shown.endswith(b"builder-client: nothing was changed\n")
        status, shown = run_on_terminal([*argv, "--yes"], environment(), b"")
        assert (status, shown.count(b"[y/N]")) == (5, 0)


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
