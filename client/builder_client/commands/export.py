"""``export``: a server's schedule as a file."""

from pathlib import Path

import click

from builder.errors import BuilderError
from builder.model import printable
from builder.reasons import reason_of
from builder_client import exporting, options, schedule_file, words
from builder_client.errors import TooOld
from builder_client.output import json_text, note, print_done, standard_output


@click.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.yes_option
@options.json_option
@options.server_options
def command(folder: Path, *, yes: bool, as_json: bool) -> None:
    """Write the schedule to the folder DIR, as apply reads it.

    It is DIR/schedule.toml, with the scripts in DIR/scripts. So it can be kept in git. Files that are there are written
    over; on a terminal it asks before, where no export has written them. Scripts that an earlier export has written, and
    that no job has any more, are removed. If it is interrupted, the schedule that was there before is there as a whole, or
    the new one is. Of a server that speaks only the classic protocol it writes what that has.

    \b
    JSON: {done: "exported", jobs, file, removed: [script]}; jobs is their number

    \b
    Example:
      builder-client export farm && builder-client apply farm/schedule.toml --dry-run
    """
    remote = options.remote()
    try:
        with remote.requests(what="options of jobs but periods") as ask:
            plans = exporting.everything(ask)
    except TooOld as error:
        note(f"{error}: here are these alone")
        plans = exporting.everything_classic(remote)
    if exporting.is_foreign(folder / schedule_file.NAME):
        question = f"Write over {printable(str(folder / schedule_file.NAME))}, which no export has written?"
        options.confirm(question, yes=yes)
    try:
        removed = [str(path) for path in exporting.write(folder, plans)]
    except OSError as error:
        raise BuilderError(f"can't write to {printable(str(folder))}: {reason_of(error)}") from error
    file = str(folder / schedule_file.NAME)
    print_done("exported", as_json=as_json, jobs=len(plans), file=file, removed=[*map(json_text, removed)])
    if not as_json:
        printer = standard_output()
        for path in removed:
            printer.line(f"removed {printable(path)}")
        printer.line(f"{words.count(len(plans), 'job')} written to {printable(file)}")
