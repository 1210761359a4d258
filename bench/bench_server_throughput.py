"""What builder-server carries: console lines, observers, info, commands, jobs, artifacts; medians of several runs.

python bench/bench_server_throughput.py [--runs N]

The peers are scripted ones in this process, and make their bytes before the clock starts, so that the figures are the
server's as far as two processes on one machine allow.
"""

import socket
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
from figures import cpu, show  # noqa: E402
from scripted import CLIENT, ask, build, connect, do, schedule, take_job  # noqa: E402

from builder import codec, execution  # noqa: E402
from builder.execution import FinishedHead  # noqa: E402
from builder.framing import frame, frame_header, read_length  # noqa: E402
from builder.messages import Execute, Info, JobFinished, Observe, Output  # noqa: E402
from builder.model import Exited  # noqa: E402
from builder.outputs import Outputs  # noqa: E402

MB = 10**6
ARTIFACT = 256 * MB
LINES = 100_000
WATCHED_LINES = 20_000
OBSERVERS = 20
INFOS = 800
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


async def lines(server: Server, observers: int = 0, count: int = LINES) -> float:
    """Return lines/s of a burst, with that many observers who read all of it, up to the durable record."""
    await do(server, Execute(name="job"))

    async def follow() -> None:
        async with connect(server, CLIENT) as peer:
            await peer.send(Observe(uuid=taken.uuid))
            while await peer.stream.receive_some(256 * 1024):
                pass

    async with take_job(server) as taken:
        data = Outputs(taken.uuid).join([b"a line of usual length, number %06d" % number for number in range(count)])
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(observers):
                nursery.start_soon(follow)
            await taken.peer.channel.send_bytes(Output, data)
            await taken.finish()
        return count / (time.perf_counter() - started)


async def line_cpu(server: Server) -> float:
    """Return the microseconds of CPU that the server takes for a line."""
    before = cpu(server.pid)
    await lines(server)
    return (cpu(server.pid) - before) / LINES * 1e6


async def watched_lines(server: Server) -> float:
    """Return the lines/s that all observers of a burst are sent together."""
    return OBSERVERS * await lines(server, OBSERVERS, WATCHED_LINES)


def _ask_info(port: int, times: int) -> None:
    """Be a client that connects, says hello, asks for info, reads the replies and goes, some times in a row."""
    hello, asked = (frame(codec.encode(message)) for message in (CLIENT, Info()))
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as replies:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(hello)
            replies.read(read_length(replies.read(8), 0)[0])
            client.sendall(asked)
            replies.read()


async def infos(server: Server, clients: int = 1) -> float:
    """Return infos/s of a small schedule, by clients that connect anew for each."""
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(trio.to_thread.run_sync, _ask_info, server.port, INFOS // clients)
    return INFOS / (time.perf_counter() - started)


async def crowded_infos(server: Server) -> float:
    return await infos(server, 8)


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


BENCHES: dict[str, tuple[Callable[[Server], Awaitable[float]], str, float | None]] = {
    f"console, a burst of {LINES} lines": (lines, "lines/s", 200_000),
    "    CPU of the server": (line_cpu, "us a line", 5),
    f"{OBSERVERS} observers of {WATCHED_LINES} lines, delivered": (watched_lines, "lines/s", 400_000),
    "info, one client": (infos, "info/s", 1500),
    "info, 8 clients": (crowded_infos, "info/s", 1500),
    "commands of 20 clients": (commands, "commands/s", None),
    f"{JOBS} jobs by {WORKERS} workers": (jobs, "jobs/s", None),
    f"artifacts, one of {ARTIFACT // MB} MB": (artifacts, "MB/s", 500),  # last: the disk is busy for a while after it
}


async def run(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        async with start_server(Path(directory), "-qq") as server:
            await do(server, schedule("job"), schedule("other", "other"))
            await build(server)
            idle = server.memory()
            for name, (bench, unit, goal) in BENCHES.items():
                show(name, [await bench(server) for _ in range(runs)], unit, goal=goal)
            show("memory of the server, idle", [idle / MB], "MB")
            show("memory of the server, afterwards", [server.memory() / MB], "MB")


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
def main(runs: int) -> None:
    """Measure what builder-server carries."""
    trio.run(run, runs)


if __name__ == "__main__":
    main()
