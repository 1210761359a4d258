"""What several servers carry on one PostgreSQL, and one on SQLite: commands, jobs, wake-ups and waiting workers.

python bench/bench_servers.py [--runs N] [--servers N]... [--workers N]

All run on this machine, with durable databases; clients and workers are scripted ones in this process, and are spread over the
servers. So a second server takes no less time from the same cores: the figures say what sharing costs, not what machines add.
"""

import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click
import trio
from bench_server_throughput import JOBS, WORKERS  # first: it finds the harness of the tests
from clusters import Cluster, find_programs
from farm import Server, start_server
from figures import cpu, show
from scripted import OUR_WORKER, ScriptedPeer, Taken, ask, build, connect, do, given_job, schedule, waiting_worker

from builder.extension.working import AskJob
from builder.messages import Execute, JobSchedule

CLIENTS, COMMANDS = 20, 500
WAKES = 50
CROWD, TAKEN = 1000, 200
IDLE_PLATFORMS = 100
LOOK = 5.0
"""Seconds for which what waits is looked at."""


@asynccontextmanager
async def farm(count: int, *options: str) -> AsyncIterator[list[Server]]:
    """Run so many servers on a PostgreSQL of their own; 0: one on SQLite."""
    async with AsyncExitStack() as stack:
        given: list[tuple[str, ...]] = [()]
        if count:
            cluster = Cluster.make(is_durable=True)
            stack.callback(cluster.kill)
            cluster.create("bench")
            given = [(f"--database={cluster.url('bench')}", f"--name=b{number}") for number in range(count)]
        servers = []
        for each in given:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="builder-bench-")))
            servers.append(await stack.enter_async_context(start_server(root, "-qq", *each, *options)))
        await do(servers[0], schedule("job"), schedule("other", "other"))
        await build(servers[-1])
        yield servers


async def commands(servers: list[Server]) -> float:
    """Return commands/s of 20 clients at once, each durable."""
    started = time.perf_counter()

    async def client(server: Server) -> None:
        for _ in range(COMMANDS // CLIENTS):
            await ask(server, Execute(name="other"))

    async with trio.open_nursery() as nursery:
        for _, server in zip(range(CLIENTS), itertools.cycle(servers), strict=False):
            nursery.start_soon(client, server)
    return COMMANDS / (time.perf_counter() - started)


async def jobs(servers: list[Server]) -> float:
    """Return jobs/s of 50 workers, from the queue to the durable record."""
    prefix = f"j{time.monotonic_ns()}-"
    async with trio.open_nursery() as nursery:
        for number, server in zip(range(JOBS), itertools.cycle(servers), strict=False):
            nursery.start_soon(do, server, schedule(f"{prefix}{number}", "many"))
    left = JOBS
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def worker(server: Server) -> None:
            nonlocal left
            while True:
                await build(server, "many", lines=[b"x"])
                left -= 1
                if not left:
                    nursery.cancel_scope.cancel()

        for _, server in zip(range(WORKERS), itertools.cycle(servers), strict=False):
            nursery.start_soon(worker, server)
    return JOBS / (time.perf_counter() - started)


async def wake_ups(servers: list[Server]) -> float:
    """Return the milliseconds from a command at one server until the one worker, who waits at another, has the job."""
    found = []
    for _ in range(WAKES):
        async with waiting_worker(servers[-1], "other") as worker:
            await trio.sleep(0.05)  # it waits by now
            began = time.perf_counter()
            await do(servers[0], Execute(name="other"))
            taken = await given_job(worker)
            found.append(time.perf_counter() - began)
            await taken.finish()
    return statistics.median(found) * 1000


async def takes(servers: list[Server]) -> list[float]:
    """Return the milliseconds from a command until one of 1000 workers, who all wait for it, has the job: median and p99."""
    begun: dict[str, float] = {}
    found: list[float] = []
    waiting = 0

    async def work(server: Server) -> None:
        nonlocal waiting
        while True:
            async with waiting_worker(server, "crowd") as worker:
                waiting += 1
                taken = Taken(peer=worker, **await given(worker))
                found.append(time.perf_counter() - begun[taken.job.name])
                await taken.finish()

    async def given(worker: ScriptedPeer) -> dict[str, Any]:
        message = await worker.channel.receive()  # for as long as it takes
        assert isinstance(message, JobSchedule)
        return {"uuid": message.uuid, "job": message.job}

    async with trio.open_nursery() as nursery:
        for _, server in zip(range(CROWD), itertools.cycle(servers), strict=False):
            nursery.start_soon(work, server)
        while waiting < CROWD:  # noqa: ASYNC110 - what is counted tells nobody
            await trio.sleep(0.1)
        await trio.sleep(2)
        for number, server in zip(range(TAKEN), itertools.cycle(servers), strict=False):
            name = f"c{time.monotonic_ns()}-{number}"
            begun[name] = time.perf_counter()
            await do(server, schedule(name, "crowd"))
            while len(found) % TAKEN != (number + 1) % TAKEN:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.002)
        nursery.cancel_scope.cancel()
    return [each * 1000 for each in (statistics.median(found), statistics.quantiles(found, n=100)[-1])]


async def idle(count: int, workers: int) -> None:
    """Show what workers that wait cost several servers."""
    most = workers // count
    options = (f"--max-connections={most * 4 // 3 + 200}", f"--max-connections-per-holder={2 * most}")
    async with farm(count, *options) as servers, AsyncExitStack() as guests:
        before = [server.memory() for server in servers]
        began = time.perf_counter()
        for number, server in zip(range(workers), itertools.cycle(servers), strict=False):
            worker = await guests.enter_async_context(connect(server, OUR_WORKER))
            await worker.send(AskJob(platform=f"p{number % IDLE_PLATFORMS}", worker=f"w{number}"))
        took = time.perf_counter() - began
        await trio.sleep(LOOK)  # the last of them wait by now
        sizes = [(server.memory() - first) / most / 1000 for server, first in zip(servers, before, strict=True)]
        show(f"{workers} workers that wait, {count} servers", sizes, "KB each")
        show("    until one of them waits", [took / workers * 1000], "ms")
        used = [cpu(server.pid) for server in servers]
        await trio.sleep(LOOK)
        show(
            "    CPU of a server meanwhile",
            [(cpu(s.pid) - u) / LOOK * 100 for s, u in zip(servers, used, strict=True)],
            "%",
        )
        show("    commands of 20 clients", [await commands(servers)], "commands/s")
        show("    until a worker has it", [await wake_ups(servers)], "ms")


BENCHES = {
    "commands of 20 clients": (commands, "commands/s"),
    f"{JOBS} jobs by {WORKERS} workers": (jobs, "jobs/s"),
    "until a worker has it": (wake_ups, "ms"),
}


async def run(runs: int, counts: tuple[int, ...], workers: int) -> None:
    for count in (0, *counts):
        where = f"{count} on PostgreSQL" if count else "SQLite"
        async with farm(count, "--max-connections-per-holder=2000") as servers:
            for name, (bench, unit) in BENCHES.items():
                show(f"{name}, {where}", [await bench(servers) for _ in range(runs)], unit)
            median, last = await takes(servers)
            show(f"    beside {CROWD} others, {where}", [median], "ms")
            show("    p99", [last], "ms")
            show("    memory of each server", [server.memory() / 1e6 for server in servers], "MB")
    if workers:
        await idle(max(counts), workers)


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
@click.option("--servers", type=click.IntRange(1), multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--workers", type=click.IntRange(0), default=10_000, show_default=True, help="Workers that wait.")
def main(runs: int, servers: tuple[int, ...], workers: int) -> None:
    """Measure what several servers carry on one PostgreSQL."""
    if find_programs() is None:
        print("PostgreSQL is not installed")
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    trio.run(run, runs, servers, min(workers, hard - 500))


if __name__ == "__main__":
    main()
