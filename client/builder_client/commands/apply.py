"""``apply``: a server's schedule made equal to a file."""

from pathlib import Path

import click

from builder.model import printable
from builder_client import applying, options, schedule_file, words
from builder_client.output import json_text, note, print_done, standard_output


@click.command("apply")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the differences like a diff, and change nothing.")
@click.option(
    "--prune", is_flag=True, help="Remove the jobs that are not in the file, too; on a terminal it asks before."
)
@click.option("--not-now", is_flag=True, help="Do not run new jobs at once.")
@options.yes_option
@options.json_option
@options.server_options
def command(file: Path, *, dry_run: bool, prune: bool, not_now: bool, yes: bool, as_json: bool) -> None:
    """Make the schedule equal to the file FILE.

    It does all of it, or nothing. Jobs that are not in it are left, and named. docs/schedule.md says what is in the
    file; 'export' writes one.

    \b
    JSON: {done, added, changed, removed, left}, names of jobs; done is "applied", or "compared" with --dry-run

    \b
    Examples:
      builder-client apply schedule.toml --dry-run --prune
      builder-client apply schedule.toml
    """
    printer = standard_output()
    here = schedule_file.read(file)
    remote = options.remote()
    if dry_run:
        with remote.requests(what=applying.WHAT) as ask:
            found = applying.plan(here, applying.listed(ask), prune=prune)
            for line in applying.diff(ask, found) if not as_json else ():
                printer.line(line)
    else:
        if prune:
            options.confirm(f"Remove the jobs from {remote} that are not in {printable(str(file))}?", yes=yes)
        found = applying.apply(remote, here, prune=prune, run_now=not not_now)
        if not as_json:
            printer.line(
                f"{words.count(len(found.added), 'job')} added, {len(found.changed)} changed, {len(found.removed)} removed"
            )
    names = {key: [*map(json_text, getattr(found, key))] for key in ("added", "changed", "removed", "left")}
    print_done("compared" if dry_run else "applied", as_json=as_json, **names)
    if found.left and not as_json:
        note(f"not in the file, and left: {', '.join(map(printable, found.left))}")
