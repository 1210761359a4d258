"""Makes the pictures of this folder again: runs a server with some jobs, and the client on a terminal.

.venv/bin/python docs/screenshots.py
"""

import io
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

from farm import Server, start_server  # noqa: E402 - the tests' parts, found above
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402
from screens import Terminal, on_terminal  # noqa: E402
from scripted import OURS, connect, do, take_job  # noqa: E402

from builder.extension.builds import CancelBuilds  # noqa: E402
from builder.extension.schedule import PlanJob  # noqa: E402
from builder.messages import Execute  # noqa: E402
from builder.model import Artifact, Exited, ScriptJob  # noqa: E402
from builder.planning import Cron, JobOptions  # noqa: E402

SIZE, WIDE = (110, 30), (170, 30)
"""Of a terminal; the history has more columns to show."""

IMAGE = [Artifact(path="image", content=bytes(3_000_000))]

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
            await build.finish(Exited(code=code), IMAGE if code == 0 else ())
    async with take_job(server, "debian-12-arm64") as build:
        await trio.sleep(16)
        await build.finish(artifacts=IMAGE)
    await do(server, Execute(name="kernel"))
    async with take_job(server, "debian-12"), connect(server, OURS) as client:
        await client.request(CancelBuilds(target="kernel"))
    await do(server, *(Execute(name=name) for name in ("compiler", "kernel", "website", "kernel-arm")))


def _show(server: Server) -> None:
    for command in ("info", "queue", "history"):
        with on_terminal("-r", server.remote, command, size=WIDE if command == "history" else SIZE) as terminal:
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
    console = Console(record=True, width=terminal.screen.columns, file=io.StringIO(), force_terminal=True)
    for number in range(lines):
        line = Text(end="\n")
        cells = [terminal.screen.buffer[number][column] for column in range(terminal.screen.columns)]
        # together, since there are seams between rectangles
        for style, alike in itertools.groupby(cells, _style):
            line.append("".join(cell.data for cell in alike), style=style or None)
        console.print(line, no_wrap=True, crop=True, soft_wrap=False)
    picture = console.export_svg(title=f"builder-client {name}", unique_id=name)
    # some programs leave out spaces at the begin of a text otherwise
    (FOLDER / f"{name}.svg").write_text(picture.replace("<svg ", '<svg xml:space="preserve" ', 1), "utf-8")


def _style(cell: Any) -> str:
    words = ["bold"] * cell.bold + ["reverse"] * cell.reverse
    if cell.fg != "default":
        words.append("yellow" if cell.fg == "brown" else cell.fg)
    return " ".join(words)


trio.run(main)
