"""How long builder-server takes to listen after a crash, while builds with large consoles ran.

python bench/bench_server_start.py [--builds N] [--megabytes N] [--losses N]

With --losses 2 each of them is to be recorded as failed, for which its console is looked through: what a start and an
answer to info take meanwhile.
"""

import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import start_server  # noqa: E402  the harness of the tests, found through the path above
from scripted import do, info, schedule, take_job  # noqa: E402

from builder import codec  # noqa: E402
from builder.framing import frame  # noqa: E402
from builder.messages import Output  # noqa: E402

MB = 10**6


async def prepare(root: Path, builds: int, size: int) -> None:
    """Have a server killed while builds run, and give them their consoles."""
    async with start_server(root, "-q") as server, contextlib.AsyncExitStack() as stack:
        for number in range(builds):
            await do(server, schedule(f"job{number}"))
            taken = await stack.enter_async_context(take_job(server))
            line = frame(codec.encode(Output(uuid=taken.uuid, line=b"a line of usual length, number", timestamp=10**9)))
            piece = line * (MB // len(line))
            with (server.data_dir / taken.job.name / str(taken.uuid) / "console").open("wb") as file:
                for _ in range(size // MB):
                    file.write(piece)
        server.kill()
    os.sync()  # else the server waits for what was written here


async def measure(root: Path) -> None:
    started = time.perf_counter()
    async with start_server(root, "-q") as server:
        print(f"listening after       {time.perf_counter() - started:8.2f} s")
        asked = time.perf_counter()
        running = len((await info(server)).running)
        print(f"answer to info        {time.perf_counter() - asked:8.2f} s, {running} builds running")
        while running:
            await trio.sleep(0.1)
            running = len((await info(server)).running)
        print(f"nothing running after {time.perf_counter() - started:8.2f} s")
        server.terminate()


@click.command()
@click.option("--builds", default=10, show_default=True)
@click.option("--megabytes", default=100, show_default=True, help="Size of each console.")
@click.option("--losses", default=0, show_default=True, help="Workers lost before.")
def main(builds: int, megabytes: int, losses: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name:
        root = Path(name)
        trio.run(prepare, root, builds, megabytes * MB)
        with contextlib.closing(sqlite3.connect(root / "data" / "builder.sqlite3")) as connection, connection:
            connection.execute("update build set losses = ?", (losses,))
        trio.run(measure, root)


if __name__ == "__main__":
    main()
