"""What a worker that waits costs the server: memory of each, on this machine, without TLS and with it.

python bench/bench_server_idle_workers.py [--workers N]
"""

import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from authorities import Authority, Issued  # noqa: E402  the harness of the tests, found through the path above
from farm import Server, eventually, start_server  # noqa: E402
from figures import show  # noqa: E402
from scripted import OUR_WORKER, connect  # noqa: E402
from visitors import shown  # noqa: E402

from builder.extension.working import AskJob  # noqa: E402
from builder.roles import HolderRole  # noqa: E402

GOAL, GOAL_TLS = 20, 60
"""KB of each."""

PLATFORMS = 100


async def measure(server: Server, workers: int, holder: Issued | None) -> tuple[float, float]:
    """Return the KB of a worker that waits, and the milliseconds that it took to come."""
    async with AsyncExitStack() as guests:

        async def enter(number: int) -> None:
            peer = connect(server, OUR_WORKER) if holder is None else shown(server, holder, OUR_WORKER)
            worker = await guests.enter_async_context(peer)
            await worker.send(AskJob(platform=f"p{number % PLATFORMS}", worker=f"w{number}"))

        for number in range(PLATFORMS):  # what is made once is not theirs
            await enter(number)
        await eventually(lambda: server.query("select count(*) from platform")[0][0] == PLATFORMS)
        before, begun = server.memory(), time.perf_counter()
        for number in range(workers):
            await enter(number)
        took = time.perf_counter() - begun
        await eventually(lambda: server.descriptors() > workers)
        await trio.sleep(1)  # the last of them have said what they want
        return (server.memory() - before) / workers / 1000, took / workers * 1000


async def run(workers: int) -> None:
    given = ("-qq", f"--max-connections={workers * 4 // 3 + 200}", f"--max-connections-per-holder={2 * workers}")
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        root = Path(directory)
        authority = Authority(root / "ca")
        files, holder = authority.server().files, authority.issue("w", uris=[HolderRole.WORKER.uri])
        tls = (f"--tls-cert={files.certificate}", f"--tls-key={files.key}", f"--tls-client-ca={files.ca}")
        for name, options, who, goal in (("plain", (), None, GOAL), ("TLS", tls, holder, GOAL_TLS)):
            (root / name).mkdir()
            async with start_server(root / name, *given, *options) as server:
                size, took = await measure(server, workers, who)
            show(f"{workers} workers that wait, {name}", [size], "KB each", goal=goal)
            show(f"  until one of them waits, {name}", [took], "ms")


@click.command()
@click.option(
    "--workers", type=click.IntRange(1), help="Workers that wait.  [default: 10000, or what the descriptors allow]"
)
def main(workers: int | None) -> None:
    """Measure what a worker that waits costs the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = (hard // 3 - 200) * 3 // 4
    if workers is not None and workers > most:
        raise click.ClickException(f"the {hard} file descriptors that a process may have are enough for {most} workers")
    trio.run(run, min(workers or 10_000, most))


main()
