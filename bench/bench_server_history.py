"""What the history costs: pages of it among few and among many finished builds, and the end of a long console.

python bench/bench_server_history.py [--builds N]

The database is filled directly. A page is measured by a client that keeps its connection, so that it is the server's time.
"""

import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, start_server  # noqa: E402  the harness of the tests, found through the path above
from figures import show  # noqa: E402
from scripted import OURS, ScriptedPeer, build, connect, do, schedule  # noqa: E402

from builder import codec  # noqa: E402
from builder.extension.builds import HistoryPlace, HistoryShown, ShowBuild, ShowHistory  # noqa: E402
from builder.extension.logs import ReadConsole  # noqa: E402
from builder.messages import Message, Output  # noqa: E402
from builder.model import Exited, Instant  # noqa: E402
from builder.outputs import Outputs  # noqa: E402

FEW = 1_000
START = 1_700_000_000_000
"""When the first build began, in milliseconds; there is one each second."""

JOBS = 100
RUNS = 20
CONSOLE = 10**9
"""Bytes of the long console."""

_INSERT = (
    "insert into build (uuid, job_id, name, platform, script, state, losses, started, finished, result, due, cause, retry,"
    " outcome, artifacts, artifact_bytes, main_hash) values (?, 1, ?, 'p1', ?, 'finished', 0, ?, ?, ?, ?, 'due', 0, ?, 1, 1, ?)"
)


def fill(database: Path, first: int, count: int) -> None:
    """Add builds; one of a thousand failed."""
    ok, failed = codec.encode_result(Exited(code=0)), codec.encode_result(Exited(code=1))
    with sqlite3.connect(database, timeout=60) as connection:
        connection.executemany(
            _INSERT,
            (
                (
                    str(UUID(int=number << 64 | number)), f"job{number % JOBS}", b"#!/bin/sh\n" * 100,
                    START + number * 1000, START + number * 1000 + 500, failed if number % 1000 == 0 else ok,
                    START + number * 1000, "failed" if number % 1000 == 0 else "succeeded", str(number % 7),
                )
                for number in range(first, first + count)
            ),
        )  # fmt: skip


async def median(client: ScriptedPeer, request: Message) -> list[float]:
    """Return the milliseconds that a request takes, of several."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        reply, *_ = await client.request(request)
        found.append((time.perf_counter() - began) * 1000)
        assert not isinstance(reply, HistoryShown) or reply.entries
    return found


async def pages(server: Server, count: int) -> None:
    """Show what requests take among so many builds."""
    asked: dict[str, Message] = {
        "the newest 20": ShowHistory(count=20),
        "20 of a job": ShowHistory(count=20, name="job7"),
        "20 of a job on a platform": ShowHistory(count=20, name="job7", platform="p1"),
        "the last failed ones": ShowHistory(count=20, failed=True),
        "20 in the middle": ShowHistory(count=20, behind=HistoryPlace(at=Instant(START + count * 500), key="z")),
        "a build by its begin": ShowBuild(target=f"{500:016x}"),
    }
    async with connect(server, OURS) as client:
        for name, request in asked.items():
            show(f"{count:>9,} builds: {name}", await median(client, request), "ms")


async def end_of_console(server: Server) -> None:
    """Show what the last lines of a long console take."""
    await do(server, schedule("long"))
    uuid, _ = await build(server)
    data = Outputs(uuid).join([b"a line of usual length, and some more of it" * 2] * 10_000, 10**9)
    with (server.job_dir("long") / str(uuid) / "console").open("wb") as file:
        for _ in range(CONSOLE // len(data)):
            file.write(data)
    async with connect(server, OURS) as client:
        found = []
        for _ in range(RUNS):
            began = time.perf_counter()
            replies = await client.request(ReadConsole(uuid=uuid, follow=False, last=100))
            found.append((time.perf_counter() - began) * 1000)
            assert sum(isinstance(reply, Output) for reply in replies) == 100
    show("the last 100 lines of a console of 1 GB", found, "ms", goal=None)


async def run(builds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        async with start_server(Path(directory), "-qq") as server:
            database = server.data_dir / "builder.sqlite3"
            fill(database, 0, FEW)
            await pages(server, FEW)
            fill(database, FEW, builds - FEW)
            await pages(server, builds)
            await end_of_console(server)


@click.command()
@click.option(
    "--builds", type=click.IntRange(FEW + 1), default=1_000_000, show_default=True, help="Builds of the large one."
)
def main(builds: int) -> None:
    """Measure what the history costs."""
    trio.run(run, builds)


main()
