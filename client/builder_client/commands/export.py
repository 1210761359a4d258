"""``export``: a server's schedule as a file."""

from pathlib import Path

import click

from builder.errors import BuilderError
from builder.model import printable
from builder.planning import JobOptions
from builder.reasons import reason_of
from builder_client import applying, options, schedule_file
from builder_client.errors import TooOld
from builder_client.output import print_done, standard_output


@click.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.json_option
@options.server_options
def command(folder: Path, *, as_json: bool) -> None:
    """Write the schedule to the folder DIR, as apply reads it.

    It is DIR/schedule.toml, with the scripts in DIR/scripts; files that are there are written over. So it can be kept in git.

    \b
    JSON: {done: "exported", jobs, file}; jobs is their number

    \b
    Example:
      builder-client export farm && builder-client apply farm/schedule.toml --dry-run
    """
    remote = options.remote()
    try:
        with remote.requests(what=applying.WHAT) as ask:
            shown = [applying.shown(ask, name) for name in applying.listed(ask)]
        plans = [schedule_file.Planned(job=each.job, options=each.options) for each in shown]
    except TooOld:
        schedule = remote.info().schedule
        plans = [schedule_file.Planned(job=each.job, options=JobOptions(period=each.period)) for each in schedule]
    try:
        schedule_file.write(folder, plans)
    except OSError as error:
        raise BuilderError(f"can't write to {printable(str(folder))}: {reason_of(error)}") from error
    file = str(folder / schedule_file.NAME)
    print_done("exported", as_json=as_json, jobs=len(plans), file=file)
    if not as_json:
        standard_output().line(f"{len(plans)} jobs written to {printable(file)}")
