"""What builder-server carries: artifacts, console lines, observers, jobs; medians of several runs on this machine.

python bench/bench_server_throughput.py [--runs N]

The peers are scripted ones in this process, and make their bytes before the clock starts, so that the figures are the
server's as far as two processes on one machine allow.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, start_server  # noqa: E402  the harness of the tests, found through the path above
from scripted import CLIENT, ask, build, connect, do, schedule, take_job  # noqa: E402

from builder import codec, execution  # noqa: E402
from builder.execution import FinishedHead  # noqa: E402
from builder.framing import frame, frame_header  # noqa: E402
from builder.messages import Execute, JobFinished, Observe, Output  # noqa: E402
from builder.model import Exited  # noqa: E402

MB = 10**6
ARTIFACT = 256 * MB
LINES = 100_000
OBSERVERS = 20
JOBS = 200
WORKERS = 50


async def artifacts(server: Server) -> float:
    """Return MB/s of one large artifact, up to the durable record."""
    await do(server, Execute(name="job"))
    piece = bytes(MB)
    async with take_job(server) as taken:
        head = execution.artifact_head("a", ARTIFACT)
        length = len(head) + ARTIFACT
        begin = execution.finished_head(FinishedHead(uuid=taken.uuid, result=Exited(code=0)), length) + head
        started = time.perf_counter()
        await taken.peer.channel.send_bytes(JobFinished, frame_header(len(begin) + ARTIFACT) + begin)
        for _ in range(ARTIFACT // MB):
            await taken.peer.channel.send_body(piece)
        await taken.peer.wait_closed(600)
        took = time.perf_counter() - started
    server.full("job", taken.uuid).unlink()
    return ARTIFACT / MB / took


async def lines(server: Server, observers: int = 0) -> float:
    """Return lines/s of a burst, with that many observers who read all of it, up to the durable record."""
    await do(server, Execute(name="job"))

    async def follow() -> None:
        async with connect(server, CLIENT) as peer:
            await peer.send(Observe(uuid=taken.uuid))
            while await peer.stream.receive_some(256 * 1024):
                pass

    async with take_job(server) as taken:
        data = b"".join(
            frame(codec.encode(Output(uuid=taken.uuid, line=b"a line of usual length, number %06d" % number)))
            for number in range(LINES)
        )
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(observers):
                nursery.start_soon(follow)
            await taken.peer.channel.send_bytes(Output, data)
            await taken.finish()
        return LINES / (time.perf_counter() - started)


async def watched_lines(server: Server) -> float:
    return await lines(server, OBSERVERS)


async def commands(server: Server) -> float:
    """Return commands/s of 20 clients at once, each durable."""
    started = time.perf_counter()

    async def client() -> None:
        for _ in range(25):
            await ask(server, Execute(name="other"))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client)
    return 500 / (time.perf_counter() - started)


async def jobs(server: Server) -> float:
    """Return jobs/s of many workers, from the queue to the durable record."""
    prefix = f"j{time.monotonic_ns()}-"
    async with trio.open_nursery() as nursery:
        for number in range(JOBS):
            nursery.start_soon(do, server, schedule(f"{prefix}{number}", "many"))
    left = JOBS
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def worker() -> None:
            nonlocal left
            while True:
                await build(server, "many", lines=[b"x"])
                left -= 1
                if not left:
                    nursery.cancel_scope.cancel()

        for _ in range(WORKERS):
            nursery.start_soon(worker)
    return JOBS / (time.perf_counter() - started)


BENCHES: dict[str, tuple[str, Callable[[Server], Awaitable[float]]]] = {
    "artifacts, one of 256 MB": ("MB/s", artifacts),
    "console, 100 000 lines": ("lines/s", lines),
    f"console with {OBSERVERS} observers": ("lines/s", watched_lines),
    "commands of 20 clients": ("commands/s", commands),
    f"{JOBS} jobs by {WORKERS} workers": ("jobs/s", jobs),
}


async def run(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        async with start_server(Path(directory), "-qq") as server:
            await do(server, schedule("job"), schedule("other", "other"))
            await build(server)
            idle = server.memory()
            for name, (unit, bench) in BENCHES.items():
                figures = [await bench(server) for _ in range(runs)]
                print(f"{name:32} {statistics.median(figures):10.0f} {unit}", flush=True)
            print(f"{'memory idle':32} {idle / MB:10.0f} MB\n{'memory afterwards':32} {server.memory() / MB:10.0f} MB")


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
def main(runs: int) -> None:
    """Measure what builder-server carries."""
    trio.run(run, runs)


main()
