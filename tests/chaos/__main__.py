"""``python -m chaos --seconds 600 --seed 7``: prints the seed, the faults as they come, and the account."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from random import SystemRandom

import click
import trio

from chaos.run import run


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="For how long faults come.")
@click.option("--seed", type=int, help="What is drawn from; another one each time unless it is given.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--servers", type=click.IntRange(0), default=0, show_default=True, help="So many on a PostgreSQL; 0: one, without."
)
@click.option("--pause", type=float, default=1.0, show_default=True, help="Seconds between faults, on the average.")
def main(seconds: float, seed: int | None, workers: int, servers: int, pause: float) -> None:
    """Hit a farm with faults, and account for every job."""
    seed = SystemRandom().randrange(10**6) if seed is None else seed
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    click.echo(f"seed {seed}, logs in {root}")
    report = trio.run(
        partial(run, root, seconds=seconds, seed=seed, workers=workers, servers=servers, pause=pause, say=click.echo)
    )
    click.echo(report)
    sys.exit(0 if report.is_good else 1)


if __name__ == "__main__":
    main()
