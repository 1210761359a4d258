"""docs/operations.md is run: its commands against a real farm, and what is printed is what it says.

What differs each time is compared by its kind: times, durations, addresses, uuids, loads. A comment ``<!-- test: … -->`` on
the page is what happens on the farm that nobody types.
"""

import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import endpoints
import forked
import pytest
from attrs import define, field
from endpoints import Endpoint
from farm import DEADLINE, ROOT, Server, environment, free_port, running_server, running_worker

PAGE = (ROOT / "docs/operations.md").read_text("utf-8")

KINDS = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\b\d+ (ms|s|min|h|d)( \d+ (s|min|h))?\b", "DURATION"),
    (r"\b\d+\.\d\d\b", "LOAD"),
    (r"[ \n]+", " "),
)

PAUSE = 0.05
"""Seconds between looks at what may take a moment to come about."""

LOOKS = {"", "info", "queue", "workers", "uploads"}
"""Commands that change nothing: what they are to show may take a moment to come about."""


def kind_of(text: str) -> str:
    for pattern, kind in KINDS:
        text = re.sub(pattern, kind, text)
    return text.strip()


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield what happens on the page, in its order: ``test`` and what is to happen, or ``$``, a command, and what it prints."""
    for match in re.finditer(r"<!-- test: (.*?) -->|^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if match[1]:
            yield "test", match[1], ""
            continue
        for each in re.split(r"^\$ ", match[2], flags=re.MULTILINE)[1:]:
            command, _, printed = each.partition("\n")
            yield "$", command, printed


@define
class Farm:
    """The farm of the page."""

    root: Path
    receiver: Endpoint
    stack: ExitStack
    port: int = field(factory=free_port)
    server: Server = field(init=False)
    running: ExitStack = field(factory=ExitStack)

    def start(self, *options: str) -> None:
        wanted = f"--port={self.port}", f"--upload={self.receiver.url(user='')}", *options
        self.server = self.running.enter_context(running_server(self.root, *wanted))

    def stop(self) -> None:
        assert self.server.terminate() == 0
        self.running.close()

    def add_worker(self, name: str) -> None:
        options = "--loop", "--sandbox=none", f"--name={name}", f"--work-dir={self.root / name}", "--drain-timeout=1s"
        self.stack.enter_context(running_worker(self.server, "debian-12", *options))

    def client(self, *arguments: str) -> str:
        done = forked.run(
            "builder_client", f"--remote={self.server.remote}", *arguments, env=environment(), timeout=DEADLINE
        )
        assert done.returncode == 0, done
        return (done.stdout + done.stderr).decode()

    def wait(self, check: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not check():
            assert time.monotonic() < end
            time.sleep(PAUSE)

    # --- what happens that nobody types

    def happen(self, what: str) -> None:
        match what:
            case "the farm":
                self.start()
                for name, script in (
                    ("hello", "exit 0"),
                    ("world", f"until [ -e {self.root}/go ]; do sleep 0.1; done"),
                ):
                    path = self.root / name
                    path.write_text(f"#!/bin/sh\n{script}\n")
                    self.client("schedule", name, "debian-12", str(path), "--period", "weekly")
                (self.root / "go").touch()
                self.add_worker("box-1")
                self.wait(lambda: self.server.query("select 1 from build where upload = 'done'") == [(1,), (1,)])
                (self.root / "go").unlink()
            case "box-2":
                pass  # its command does it
            case "box-2 builds":
                self.client("drain", "--worker", "box-1")
                self.client("execute", "world")
                self.wait(lambda: '"building"' in self.client("workers", "--json"))
                self.client("resume", "--worker", "box-1")
            case "the build ends":
                ending = threading.Thread(target=self.end_build)
                ending.start()
                self.stack.callback(ending.join)
            case "the disk is full":
                self.wait(lambda: "0 queued, 0 running" in self.client())  # of what runs the lines would wait
                self.stop()
                self.start("--min-free=900T")
            case "there is room":
                self.stop()
                self.start()
                self.wait(lambda: "0 queued, 0 running" in self.client())
            case "the receiver fails":
                self.receiver.status = 503
            case "the receiver works":
                self.receiver.status = 201
            case _:
                raise AssertionError(what)

    def end_build(self) -> None:
        """Let the build of box-2 end once that is drained."""
        self.wait(lambda: bool(self.server.query("select 1 from halt")))
        (self.root / "go").touch()

    def run(self, command: str) -> str:
        here = command.replace("/var/lib/builder", str(self.server.data_dir)).replace("/backup", str(self.root))
        match shlex.split(here.removeprefix("runuser -u builder -- ")):
            case ["builder-client", *arguments]:
                return self.client(*arguments)
            case ["builder-server", *arguments]:
                done = forked.run("builder_server", *arguments, env=environment(), timeout=DEADLINE)
                assert done.returncode == 0, done
                return (done.stdout + done.stderr).decode()
            case ["systemctl", "enable", "--now", "builder-worker@debian-12"]:
                self.add_worker("box-2")
            case ["systemctl", "restart", "builder-server"]:
                self.stop()
                self.start()
            case ["systemctl", "stop", "builder-server"]:
                self.stop()
                shutil.rmtree(self.server.data_dir)  # the disk died
            case ["install", "-d", "-o", "builder", "-g", "builder", "-m", "0750", path]:
                Path(path).mkdir()
            case ["systemctl", "start", "builder-server"]:
                self.start()
            case other:
                raise AssertionError(other)
        return ""

    def printed(self, text: str) -> str:
        """Return what was printed as the page has it."""
        receiver = self.receiver.url(user="").partition("?")[0]
        text = text.replace(receiver, "https://builds.example.org/upload").replace(
            str(self.server.data_dir), "/var/lib/builder"
        )
        return kind_of(text.replace(str(self.root), "/backup"))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with endpoints.serving() as receiver, ExitStack() as stack:
        farm = Farm(tmp_path, receiver, stack)
        with farm.running:
            yield farm


def test_a_day(farm: Farm) -> None:
    count = 0
    for what, command, printed in steps():
        if what == "test":
            farm.happen(command)
            continue
        expected, found = kind_of(printed), farm.printed(farm.run(command))
        is_look = command.startswith("builder-client") and command.removeprefix("builder-client").strip() in LOOKS
        end = time.monotonic() + DEADLINE
        while is_look and found != expected and time.monotonic() < end:
            time.sleep(PAUSE)
            found = farm.printed(farm.run(command))
        assert found == expected, command
        count += 1
    assert count > 20
