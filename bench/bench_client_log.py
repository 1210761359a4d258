"""What a console costs that is read to its end: CPU of builder-client and of the server, for each line.

python bench/bench_client_log.py [--runs N] [--lines N]
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

import click
import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / name) for name in (".", "server", "worker", "client"))]

from farm import Server, environment, start_server  # noqa: E402  the harness of the tests, found through the path above
from figures import cpu, show  # noqa: E402
from scripted import do, schedule, take_job  # noqa: E402

from builder.messages import Execute, Output  # noqa: E402
from builder.outputs import Outputs  # noqa: E402

PIECE = 10_000
RUNS = {
    "log": ["log", "UUID"],
    "log --grep": ["log", "UUID", "--grep", "99$"],
    "log --json": ["log", "UUID", "--json"],
    "observe": ["observe", "UUID"],
}


async def build(server: Server, lines: int) -> UUID:
    """Have a build with so many lines, and return its uuid."""
    await do(server, schedule("job"), Execute(name="job"))
    async with take_job(server) as taken:
        outputs = Outputs(taken.uuid)
        for start in range(0, lines, PIECE):
            said = [
                b"a line of usual length, number %07d" % number for number in range(start, min(lines, start + PIECE))
            ]
            await taken.peer.channel.send_bytes(Output, outputs.join(said))
        await taken.finish()
        return taken.uuid


def used(*arguments: str) -> float:
    """Return the seconds of CPU of builder-client with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "builder_client", *arguments]
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def measure(runs: int, lines: int) -> None:
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name:
        async with start_server(Path(name), "-qq") as server:
            uuid = str(await build(server, lines))
            for what, words in RUNS.items():
                arguments = [f"--remote={server.remote}", *(uuid if word == "UUID" else word for word in words)]
                client, serving = [], []
                for _ in range(runs):
                    before = cpu(server.pid)
                    client.append(await trio.to_thread.run_sync(used, *arguments) / lines * 1e6)
                    serving.append((cpu(server.pid) - before) / lines * 1e6)
                show(f"{what}, {lines} lines, CPU of the client", client, "us a line", goal=5)
                show("    CPU of the server", serving, "us a line")


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
@click.option("--lines", type=click.IntRange(1), default=1_000_000, show_default=True, help="Lines of the console.")
def main(runs: int, lines: int) -> None:
    """Measure what it costs to read a console."""
    trio.run(measure, runs, lines)


if __name__ == "__main__":
    main()
