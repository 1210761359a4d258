"""Of builder-db: job-remove and vacuum."""

import time
from pathlib import Path

import click

from builder.model import Instant
from builder_web import policies, removing
from builder_web.administration.options import datadir, datadir_option, reading, writing
from builder_web.directory import DataDirectory
from builder_web.store import removal
from builder_web.store.removal import Policy


def _remove_files(datadir: Path) -> None:
    with writing(datadir) as connection:
        removing.remove_files(connection, DataDirectory(datadir))


@click.command("job-remove")
@datadir
@click.argument("job")
def job_remove(datadir: Path, job: str) -> None:
    """Remove a job with all its builds.

    \b
    Example:
      builder-db job-remove hello
    """
    with writing(datadir) as connection:
        count = removal.remove_job(connection, job)
    _remove_files(datadir)
    click.echo(f"removed {job} with {count} build{'' if count == 1 else 's'}")


@click.group("vacuum")
def vacuum() -> None:
    """Remove old builds.

    \b
    Examples:
      builder-db vacuum older-than 2026-01-01
      builder-db vacuum older-than 90d
      builder-db vacuum except-latest-successful 5
      builder-db vacuum except-latest 20 --job hello --platform debian-12
    """


def _vacuum(policy: Policy, datadir: Path) -> None:
    now = Instant(time.time_ns() // 1_000_000)
    with reading(datadir) as connection:
        gone = removal.beyond(connection, policy, now)
    for part in removing.parts(gone):
        with writing(datadir) as connection:
            removal.remove(connection, part)
        _remove_files(datadir)
        for build in part:
            click.echo(f"removed {build.job} {build.uuid}")


policies.add_commands(vacuum, _vacuum, (datadir_option,))
