"""What a command costs while workers wait: commands per second of one client, each durable, and milliseconds of the
server's CPU for one; medians on this machine.

python bench/bench_server_waking.py [--runs N] [--workers N]...

Every worker has a platform of its own; the commands concern none of them. At last one of them waits behind jobs that lack
a template.
"""

import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, eventually, start_server  # noqa: E402  the harness of the tests, found through the path above
from scripted import do, schedule, waiting_worker  # noqa: E402

from builder.messages import Execute, Message, ScheduleOrbBuild, Unschedule  # noqa: E402
from builder.model import OrbBuildJob, Period  # noqa: E402

COMMANDS = 200
BLOCKED = 2000


def cpu(server: Server) -> float:
    """Return the seconds of CPU that the server has used."""
    ticks = Path(f"/proc/{server.pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


async def measure(server: Server, *commands: Message) -> tuple[float, float]:
    """Return commands/s of one client, which gives them again and again, and the CPU of each in milliseconds."""
    used, started = cpu(server), time.perf_counter()
    for _ in range(COMMANDS // len(commands)):
        await do(server, *commands)
    return COMMANDS / (time.perf_counter() - started), (cpu(server) - used) / COMMANDS * 1000


async def show(server: Server, runs: int, what: str) -> None:
    figures = [
        (
            *await measure(server, Execute(name="job")),
            *await measure(server, schedule("other"), Unschedule(name="other")),
        )
        for _ in range(runs)
    ]
    rate, used, rate_2, used_2 = (statistics.median(column) for column in zip(*figures, strict=True))
    print(f"{what:24} {rate:10.0f}/s {used:6.1f} ms {rate_2:12.0f}/s {used_2:6.1f} ms", flush=True)


async def run(runs: int, crowds: tuple[int, ...]) -> None:
    print(f"{'workers waiting':24} {'execute':>22} {'schedule, unschedule':>24}")
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        async with start_server(Path(directory), "-qq") as server, AsyncExitStack() as workers:
            await do(server, schedule("job"))
            waiting = 0
            for crowd in sorted(crowds):
                for number in range(waiting, crowd):
                    await workers.enter_async_context(waiting_worker(server, f"w{number}"))
                waiting = crowd
                await eventually(lambda: server.query("select count(*) from platform")[0][0] > waiting)  # noqa: B023
                await show(server, runs, str(crowd))
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
        async with start_server(Path(directory), "-qq") as server, waiting_worker(server, "w0"):
            await do(server, schedule("job"))
            async with trio.open_nursery() as nursery:
                for part in range(20):
                    orbs = (orb_job(f"orb{part}-{number}") for number in range(BLOCKED // 20))
                    nursery.start_soon(do, server, *orbs)
            await show(server, runs, f"1, {BLOCKED} jobs blocked")


def orb_job(name: str) -> ScheduleOrbBuild:
    return ScheduleOrbBuild(period=Period.NEVER, job=OrbBuildJob(name=name, opam_package="x"))


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
@click.option(
    "--workers",
    type=click.IntRange(0, 999),
    multiple=True,
    default=(0, 20, 100, 900),
    show_default=True,
    help="Workers that wait; may be given several times.",
)
def main(runs: int, workers: tuple[int, ...]) -> None:
    """Measure what a command costs while workers wait."""
    trio.run(run, runs, workers)


main()
