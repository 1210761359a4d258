"""How fast a worker is: a job that does nothing and one that says much, from the start of its process to its end.

python bench/bench_worker_speed.py [--runs N] [--sandbox NAME]

Whole processes against a real server, so that the figures hold the start of Python and what the server does.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, environment, start_server  # noqa: E402  the harness of the tests
from figures import show  # noqa: E402
from scripted import do, schedule  # noqa: E402

from builder.messages import Execute  # noqa: E402

JOBS = {"true": (b"true", 0.25), "seq 1 250000": (b"seq 1 250000", 1.2)}  # scripts, and goals in seconds


async def work(server: Server, sandbox: str, directory: Path) -> tuple[float, float]:
    """Return the seconds that a worker takes for one job, and those of CPU of it and all of the job."""
    options = ("--quiet", "--sandbox", sandbox, "--work-dir", str(directory / "jobs"), "--remote", server.remote)
    command = [sys.executable, "-m", "builder_worker", "p1", *options]
    before, started = os.times(), time.perf_counter()
    await trio.to_thread.run_sync(lambda: subprocess.run(command, env=environment(), check=True))
    took, after = time.perf_counter() - started, os.times()
    return took, after.children_user + after.children_system - before.children_user - before.children_system


async def run(runs: int, sandbox: str) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with start_server(directory, "-qq") as server:
            for job, (script, goal) in JOBS.items():
                await do(server, schedule(job.replace(" ", "-"), text=script))
                await work(server, sandbox, directory)  # warms up
                figures = []
                for _ in range(runs):
                    await do(server, Execute(name=job.replace(" ", "-")))
                    figures.append(await work(server, sandbox, directory))
                show(f"worker, {job}, sandbox {sandbox}", [took for took, _ in figures], "s", goal=goal)
                show("    of that CPU, with the job's", [used for _, used in figures], "s")


@click.command()
@click.option("--runs", type=click.IntRange(1), default=7, show_default=True, help="Runs of each, for the median.")
@click.option("--sandbox", default="none", show_default=True, help="The sandbox of the jobs.")
def main(runs: int, sandbox: str) -> None:
    """Measure how fast builder-worker is."""
    trio.run(run, runs, sandbox)


main()
