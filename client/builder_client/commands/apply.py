"""``apply``: a server's schedule made equal to a file."""

from pathlib import Path

import click
from attrs import evolve

from builder.model import printable
from builder_client import applying, options, planning, schedule_file, words
from builder_client.output import json_text, note, print_done, standard_output

MAX_NAMED = 10
"""Jobs that are named of those that the file does not have: there may be thousands, and --json has them all."""


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

    It does all of it, or nothing. Jobs that are not in it are left, and named. builder-schedule.toml(5) says what is in
    the file; 'export' writes one. If others change the schedule meanwhile, the file wins; a job that comes meanwhile stays.

    \b
    JSON: {done, added, changed, removed, left}, names of jobs; done is "applied", or "compared" with --dry-run

    \b
    Examples:
      builder-client apply schedule.toml --dry-run --prune
      builder-client apply schedule.toml
    """
    printer = standard_output()
    here = schedule_file.read(file)
    remote = evolve(options.remote(), reply_timeout=applying.TIMEOUT)
    with remote.requests(what=applying.WHAT) as ask:
        found = applying.look(ask, here, prune=prune)
    if found.removed and not dry_run:
        count = words.count(len(found.removed), "job")
        which = f"Remove {count} from {remote} that {printable(str(file))} does not have?"
        options.confirm("\n".join([*applying.removals(found), which]), yes=yes)
    with remote.requests(what=applying.WHAT) as ask:
        done = applying.apply(ask, found, run_now=not not_now, dry_run=dry_run)
        if done is not found:
            note("others have changed the schedule meanwhile: the file was compared with it once more")
        found = done
        if not as_json:
            for line in applying.diff(ask, found) if dry_run else applying.removals(found):
                printer.line(line)
            if not dry_run or not found.is_change:
                printer.line(_summary(found))
    names = {key: [*map(json_text, getattr(found, key))] for key in ("added", "changed", "removed", "left")}
    print_done("compared" if dry_run else "applied", as_json=as_json, **names)
    if found.left and not as_json:
        more = f" and {len(found.left) - MAX_NAMED} more" if len(found.left) > MAX_NAMED else ""
        note(f"not in the file, and left: {', '.join(map(printable, found.left[:MAX_NAMED]))}{more}")
    for awaited, waiting in found.unknown().items():
        planning.note_awaited(awaited, waiting)


def _summary(found: applying.Plan) -> str:
    if not found.is_change:
        return "no changes"
    return f"{words.count(len(found.added), 'job')} added, {len(found.changed)} changed, {len(found.removed)} removed"
