"""``reschedule``: set the next run of a job, and its period if there is one."""

import click

from builder.messages import Reschedule
from builder.model import Instant, Period
from builder_client import options, words
from builder_client.output import print_done


@click.command("reschedule")
@options.job_argument
@click.argument("next_run", metavar="NEXT", callback=options.by(words.parse_time))
@click.option(
    "--period",
    type=options.PERIODS,
    callback=options.by(Period),
    metavar="PERIOD",
    help="A new period: hourly, daily, weekly or never.",
)
@options.json_option
@options.server_options
def command(name: str, next_run: Instant, period: Period | None, *, as_json: bool) -> None:
    """Set the next run of the job NAME to the time NEXT.

    NEXT is RFC 3339 with any offset from UTC; without one it is UTC, and the time of day may be left out.

    \b
    JSON: {done: "rescheduled", job, next}

    \b
    Examples:
      builder-client reschedule hello 2030-01-31T06:00:00Z
      builder-client reschedule hello 2030-01-31T08:00+02:00 --period weekly
      builder-client reschedule hello "2030-01-31 06:00"
    """
    options.remote().ask(Reschedule(name=name, next=next_run, period=period))
    print_done("rescheduled", as_json=as_json, job=name, next=next_run.isoformat())
