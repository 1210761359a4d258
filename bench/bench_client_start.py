"""What people wait for: the CPU of builder-client, from the start of its process to its end.

python bench/bench_client_start.py [--runs N] [--jobs N]
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import environment, start_server  # noqa: E402  the harness of the tests, found through the path above
from figures import show  # noqa: E402
from scripted import do, schedule  # noqa: E402

HELP, COMMAND = 0.15, 0.25  # goals in seconds
RUNS = {
    "--help": (["--help"], HELP),
    "schedule --help": (["schedule", "--help"], HELP),
    "info": (["info"], COMMAND),
    "info --json": (["info", "--json"], COMMAND),
    "overview": ([], COMMAND),
}


def used(*arguments: str) -> float:
    """Return the seconds of CPU of builder-client with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "builder_client", *arguments]
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def measure(runs: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name:
        async with start_server(Path(name), "-q") as server:
            for number in range(jobs):
                await do(server, schedule(f"job{number}"))
            for what, (arguments, goal) in RUNS.items():
                taken = []
                for run in range(runs + 1):  # the first one warms up
                    seconds = await trio.to_thread.run_sync(used, f"--remote={server.remote}", *arguments)
                    taken += [seconds] if run else []
                show(f"client, CPU of {what}", taken, "s", goal=goal)


@click.command()
@click.option("--runs", type=click.IntRange(1), default=15, show_default=True, help="Runs of each, for the median.")
@click.option("--jobs", type=click.IntRange(0), default=10, show_default=True, help="Jobs that the server has.")
def main(runs: int, jobs: int) -> None:
    """Measure what builder-client costs."""
    trio.run(measure, runs, jobs)


if __name__ == "__main__":
    main()
