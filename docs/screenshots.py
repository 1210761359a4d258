"""Makes the pictures of this folder again: runs a server with some jobs, and the client on a terminal.

.venv/bin/python docs/screenshots.py
"""

import io
import sys
import tempfile
import time
from pathlib import Path

import trio

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

from farm import Server, start_server  # noqa: E402 - the tests' parts, found above
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402
from screens import Terminal, on_terminal  # noqa: E402
from scripted import OURS, connect, do, take_job  # noqa: E402

from builder.extension.schedule import PlanJob  # noqa: E402
from builder.messages import Execute  # noqa: E402
from builder.model import Exited, ScriptJob  # noqa: E402
from builder.planning import Cron, JobOptions  # noqa: E402

SIZE = (110, 30)

JOBS = [
    ("website", "debian-12", Cron(rule="*/30 * * * *")),
    ("kernel", "debian-12", Cron(rule="17 3 * * mon-fri", zone="Europe/Copenhagen")),
    ("compiler", "debian-12", Cron(rule="@daily")),
    ("kernel-arm", "debian-12-arm64", Cron(rule="@weekly")),
    ("ports", "freebsd-14", Cron(rule="@weekly")),
]


async def main() -> None:
    """Write a picture of each command."""
    with tempfile.TemporaryDirectory() as folder:
        async with start_server(Path(folder)) as server:
            await _fill(server)
            async with take_job(server, "debian-12") as build, take_job(server, "debian-12-arm64") as other:
                await build.say(b"configuring", b"  CC  main.o", b"  CC  parse.o", b"  LD  website")
                await other.say(b"  CC  init/main.o")
                await trio.sleep(1.2)
                await trio.to_thread.run_sync(_show, server)


async def _fill(server: Server) -> None:
    async with connect(server, OURS) as client:
        for name, platform, cron in JOBS:
            job = ScriptJob(name=name, platform=platform, script=b"#!/bin/sh\n")
            await client.request(PlanJob(job=job, options=JobOptions(cron=cron), run_now=True))
    for code, seconds in ((0, 25), (0, 3), (1, 1)):
        async with take_job(server, "debian-12") as build:
            await trio.sleep(seconds)
            await build.finish(Exited(code=code))
    async with take_job(server, "debian-12-arm64") as build:
        await trio.sleep(16)
        await build.finish()
    await do(server, *(Execute(name=name) for name in ("compiler", "kernel", "website", "kernel-arm")))


def _show(server: Server) -> None:
    for command in ("info", "queue", "history"):
        with on_terminal("-r", server.remote, command, size=SIZE) as terminal:
            terminal.wait()
            terminal.read(0.2)
            _save(terminal, command)
    with on_terminal("-r", server.remote, "watch", size=SIZE) as terminal:
        terminal.wait_for(lambda text: "q quits" in text and "2 running" in text)
        terminal.type(b"j")
        terminal.wait_for(lambda text: "LD  website" in text)
        time.sleep(0.2)
        _save(terminal, "watch")
        terminal.type(b"q")
        terminal.wait()


def _save(terminal: Terminal, name: str) -> None:
    lines = len(terminal.text.rstrip().splitlines())
    console = Console(record=True, width=SIZE[0], file=io.StringIO(), force_terminal=True)
    for number in range(lines):
        line = Text(end="\n")
        for column in range(SIZE[0]):
            cell = terminal.screen.buffer[number][column]
            style = " ".join(word for word, is_so in (("bold", cell.bold), ("reverse", cell.reverse)) if is_so)
            colour = "" if cell.fg == "default" else f" {'yellow' if cell.fg == 'brown' else cell.fg}"
            line.append(cell.data, style=(style + colour).strip() or None)
        console.print(line, no_wrap=True, crop=True, soft_wrap=False)
    picture = console.export_svg(title=f"builder-client {name}", unique_id=name)
    # some programs leave out spaces at the begin of a text otherwise
    (FOLDER / f"{name}.svg").write_text(picture.replace("<svg ", '<svg xml:space="preserve" ', 1), "utf-8")


trio.run(main)
