"""``builder-worker root``: root trees, the systems that jobs see."""

import datetime as dt
from pathlib import Path

import click

from builder_worker.commands.options import CONTEXT

ROOTS = Path("/var/lib/builder-worker/roots")
"""Where trees lie if nobody says."""


@click.group(context_settings=CONTEXT)
def root() -> None:
    """Make, list and remove root trees: the systems that jobs see with --root DIR."""


@root.command(name="create")
@click.argument("name")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--snapshot",
    metavar="DATE",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")),
    help="Take the packages of that day (UTC), from the distribution's snapshot service: the tree can be made again.",
)
@click.option("--mirror", metavar="URL", help="Take the packages from this archive.")
@click.option("--include", metavar="PACKAGE", multiple=True, help="Install this package too. Repeat.")
def create(
    *, name: str, directory: Path | None, snapshot: dt.datetime | None, mirror: str | None, include: tuple[str, ...]
) -> None:
    """Make the tree of a distribution, such as debian-12 or ubuntu-24.04, with mmdebstrap.

    DIR must not exist yet; without it, the tree is /var/lib/builder-worker/roots/NAME. It needs some 200 MB.

    \b
      builder-worker root create debian-12 --snapshot 2026-01-15 --include build-essential
    """  # noqa: D301 - the \b is the character that makes click keep the lines below it
    import trio

    from builder_worker.sandbox import SandboxError, roots
    from builder_worker.sandbox.job_directory import make_directory

    target = (directory or ROOTS / name).absolute()
    if name not in roots.DISTRIBUTIONS:
        raise click.UsageError(f"no distribution is called {name}: there are {', '.join(roots.DISTRIBUTIONS)}")
    if target.exists() or target.is_symlink():
        raise SandboxError(f"{target} exists already")
    if directory is None:
        make_directory(ROOTS, 0o755)
    date = snapshot.replace(tzinfo=dt.UTC) if snapshot else None
    packages = ("ca-certificates", *include)

    async def make() -> roots.RootTree:
        return await roots.create(name, target, snapshot=date, mirror=mirror, include=packages)

    label = trio.run(make)
    click.echo(f"{target}\n{_describe(label)}")
    if label.snapshot is None:
        click.echo("It is the archive as of now, which can't be had again: name a --snapshot for a tree that can.")


@root.command(name="list")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
def list_(*, directory: Path | None) -> None:
    """List the trees in DIR, by default those in /var/lib/builder-worker/roots."""
    from builder_worker.sandbox import roots

    place = directory or ROOTS
    trees = list(roots.list_roots(place)) if directory is not None or ROOTS.exists() else []
    for path, label in trees:
        click.echo(f"{path}  {_describe(label)}")
    if not trees:
        click.echo(f"no root trees in {place}; `builder-worker root create` makes one", err=True)


@root.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def remove(*, directory: Path) -> None:
    """Remove a tree, and nothing that is none or that a worker uses."""
    import trio

    from builder_worker.sandbox import roots

    trio.run(roots.remove, directory)


def _describe(label: object) -> str:
    from builder.model import printable
    from builder_worker.sandbox.roots import RootTree

    assert isinstance(label, RootTree)
    date = f"snapshot {label.snapshot}" if label.snapshot else "no snapshot"
    return printable(f"{label.name} ({label.suite}), {date}, SHA-256 {label.sha256}")
