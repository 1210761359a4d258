"""What builder-server carries on each kind of database, both durable: commands and jobs; medians of several runs, by turns.

python bench/bench_server_database.py [--runs N]

PostgreSQL is one of its own on this machine, with its usual settings, reached over a Unix socket.
"""

import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import click
import trio
from bench_server_throughput import commands, jobs  # first: it finds the harness of the tests
from clusters import Cluster, find_programs
from farm import Server, start_server
from figures import cpu, show
from scripted import ask, build, do, schedule

from builder.messages import Execute


async def one_by_one(server: Server) -> float:
    """Return commands/s of one client, each waiting for the disk by itself."""
    started = time.perf_counter()
    for _ in range(100):
        await ask(server, Execute(name="other"))
    return 100 / (time.perf_counter() - started)


async def command_cpu(server: Server) -> float:
    """Return the microseconds of CPU that the server takes for a command."""
    before = cpu(server.pid)
    await commands(server)
    return (cpu(server.pid) - before) / 500 * 1e6


BENCHES = {
    "commands of one client": (one_by_one, "commands/s"),
    "commands of 20 clients": (commands, "commands/s"),
    "    CPU of the server": (command_cpu, "us each"),
    "200 jobs by 50 workers": (jobs, "jobs/s"),
}


async def run(runs: int) -> None:
    cluster = Cluster.make(is_durable=True)
    cluster.create("bench")
    options = {"SQLite": (), "PostgreSQL": (f"--database={cluster.url('bench')}",)}
    async with AsyncExitStack() as stack:
        servers = {}
        for kind, given in options.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="builder-bench-"))
            servers[kind] = await stack.enter_async_context(start_server(Path(directory), "-qq", *given))
            await do(servers[kind], schedule("job"), schedule("other", "other"))
            await build(servers[kind])
        for name, (bench, unit) in BENCHES.items():
            found: dict[str, list[float]] = {kind: [] for kind in servers}
            for _ in range(runs):
                for kind, server in servers.items():
                    found[kind].append(await bench(server))
            for kind, values in found.items():
                show(f"{name}, {kind}", values, unit)
        for kind, server in servers.items():
            show(f"memory of the server, {kind}", [server.memory() / 1e6], "MB")
    cluster.kill()


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
def main(runs: int) -> None:
    """Measure what builder-server carries on SQLite and on PostgreSQL."""
    if find_programs() is None:
        print("PostgreSQL is not installed")
        return
    trio.run(run, runs)


if __name__ == "__main__":
    main()
