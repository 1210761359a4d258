"""Of builder-db: job-remove and vacuum."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import click
import sqlalchemy as sa

from builder.model import Instant
from builder_web.administration.options import database, datadir
from builder_web.directory import DataDirectory
from builder_web.removing import remove_files
from builder_web.store import removal
from builder_web.store.removal import Policy, Removed


def _remove(datadir: Path, step: Callable[[sa.Connection], Removed]) -> Removed:
    """Remove rows, then files.

    The files go in a second transaction, which holds the lock: after a crash between them they are left over, and
    verify-data-dir names them; the other way round rows would name files that are gone.
    """
    with database(datadir) as connection:
        removed = step(connection)
    with database(datadir) as connection:
        remove_files(DataDirectory(datadir), removal.still_unused(connection, removed))
    return removed


@click.command("job-remove")
@datadir
@click.argument("job")
def job_remove(datadir: Path, job: str) -> None:
    """Remove a job with all its builds."""
    removed = _remove(datadir, lambda connection: removal.remove_job(connection, job))
    click.echo(f"removed {job} with {len(removed.builds)} builds")


@click.group("vacuum")
def vacuum() -> None:
    """Remove old builds.

    \b
    Examples:
      builder-db vacuum older-than 2026-01-01
      builder-db vacuum except-latest-successful 5
      builder-db vacuum except-latest 20 --job hello --platform debian-12
    """


def _which(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--platform", help="Only builds on that platform."),
        click.option("--job", "jobs", multiple=True, help="Only builds of that job; may be given several times."),
        datadir,
    ):
        function = option(function)
    return function


def _vacuum(datadir: Path, policy: Policy) -> None:
    removed = _remove(datadir, lambda connection: removal.remove(connection, removal.beyond(connection, policy)))
    for build in removed.builds:
        click.echo(f"removed {build.job} {build.uuid}")


@vacuum.command("older-than")
@_which
@click.argument("date", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"]))
def older_than(datadir: Path, jobs: tuple[str, ...], platform: str | None, date: dt.datetime) -> None:
    """Remove builds that began before a date, in UTC."""
    moment = Instant.from_datetime(date.replace(tzinfo=dt.UTC))
    _vacuum(datadir, Policy(newer_than=moment, jobs=jobs, platform=platform))


@vacuum.command("except-latest")
@_which
@click.argument("count", type=click.IntRange(0))
def except_latest(datadir: Path, jobs: tuple[str, ...], platform: str | None, count: int) -> None:
    """Keep the newest builds of each job on each platform, so many."""
    _vacuum(datadir, Policy(latest=count, jobs=jobs, platform=platform))


@vacuum.command("except-latest-successful")
@_which
@click.argument("count", type=click.IntRange(0))
def except_latest_successful(datadir: Path, jobs: tuple[str, ...], platform: str | None, count: int) -> None:
    """Keep the newest successful builds of each job on each platform, so many, and all that are newer."""
    _vacuum(datadir, Policy(latest_successful=count, jobs=jobs, platform=platform))
