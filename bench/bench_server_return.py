"""How long it takes until all workers that had a build go on, when they come back at once to a server that was killed.

python bench/bench_server_return.py [--workers N] [--lines N]

After that each of them sends one more line and its result: how long until all results are recorded. Server and workers
share the machine.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, eventually, start_server  # noqa: E402  the harness of the tests, found through the path above
from scripted import OUR_WORKER, OURS, Given, ScriptedPeer, ask_job, connect, schedule  # noqa: E402

from builder.extension.working import Continue  # noqa: E402
from builder.messages import Success  # noqa: E402

TARGET = 5.0
"""Seconds in which 500 workers are to go on, each with a console of 1000 lines."""


async def prepare(root: Path, workers: int, lines: int) -> list[Given]:
    """Have a server killed while builds run."""
    async with start_server(root, "-q") as server, contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(server, OURS))
        left: list[Given] = []
        for number in range(workers):
            assert await client.request(schedule(f"job{number}")) == [Success()]
            peer = await stack.enter_async_context(connect(server, OUR_WORKER))
            given = await ask_job(peer)
            await given.say(peer, 0, lines)
            left.append(given)
        await eventually(lambda: all(is_written(server, given, lines) for given in left), what="the consoles")
        server.kill()
    return left


def is_written(server: Server, given: Given, lines: int) -> bool:
    console = server.job_dir(given.job.name) / str(given.uuid) / "console"
    return console.read_bytes().count(b"line ") == lines


async def measure(root: Path, left: list[Given], lines: int) -> None:
    started = time.perf_counter()
    async with start_server(root, "-q") as server, contextlib.AsyncExitStack() as stack:
        print(f"listening after            {time.perf_counter() - started:8.2f} s")
        peers: list[tuple[Given, ScriptedPeer]] = []

        async def come_back(given: Given) -> None:
            peer = await stack.enter_async_context(connect(server, OUR_WORKER))
            assert await given.come_back(peer, elapsed=1000) == Continue(lines=lines)
            peers.append((given, peer))
            waits.append(time.perf_counter() - began)

        async def finish(given: Given, peer: ScriptedPeer) -> None:
            await given.say(peer, lines, lines + 1)
            await given.finish(peer)

        waits: list[float] = []
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for given in left:
                nursery.start_soon(come_back, given)
        print(
            f"{len(left)} workers go on after  {max(waits):8.2f} s, half of them after {sorted(waits)[len(waits) // 2]:.2f} s"
        )
        print(f"memory of the server       {server.memory() / 2**20:8.0f} MiB")
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for given, peer in peers:
                nursery.start_soon(finish, given, peer)
        print(f"all results recorded after {time.perf_counter() - began:8.2f} s")
        server.terminate()
    if max(waits) > TARGET:
        sys.exit(f"more than {TARGET:.0f} s")


@click.command()
@click.option("--workers", default=500, show_default=True)
@click.option("--lines", default=1000, show_default=True, help="Lines of each console.")
def main(workers: int, lines: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name:
        left = trio.run(prepare, Path(name), workers, lines)
        trio.run(measure, Path(name), left, lines)


if __name__ == "__main__":
    main()
