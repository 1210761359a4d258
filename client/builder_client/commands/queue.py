"""``queue``: what waits, why, and until when."""

import click

from builder.model import printable
from builder_client import clock, halts, options, provisions, report, words
from builder_client.errors import Refused, TooOld
from builder_client.fitting import Column, share
from builder_client.looking import look, queue_json, start, title, why
from builder_client.output import note, standard_output

_COLUMNS = (
    Column("#", rigid=True),
    Column("JOB"),
    Column("WAITS SINCE", rigid=True, spare=1, brief=words.brief_time),
    Column("STARTS", rigid=True),
    Column("WHY IT WAITS"),
)


@click.command("queue")
@click.option("--platform", metavar="PLATFORM", shell_complete=options.completes("platforms"), help="Only that queue.")
@options.json_option
@options.color_option
@options.server_options
def command(*, platform: str | None, as_json: bool, color: str) -> None:
    """Show what waits on each platform, why, and for how long.

    Up to 1000 jobs of each queue are shown, on a terminal 100 of all queues without --platform. Likely starts follow from
    how long the last five successful builds of each job took; where nobody knows, nothing is said. Below a queue stands what
    builder-provision has asked an engine for, and how far that is. A server of the classic protocol tells the order alone.

    \b
    Examples:
      builder-client queue
      builder-client queue --platform debian-12
      builder-client queue --json | jq '.queues[] | select(.workers_waiting + .workers_busy == 0) | .platform'

    \b
    JSON: {queues: [{platform, workers_waiting, workers_busy, workers_drained, workers_pressed, queued,
             asked: [{by, engine, since, coming: [{count, stage, reason}], why_not: [REASON]}],
             jobs: [{job, cause, why, ahead, due, not_before, likely_start, expected_ms, needs: [NEED],
                     unmet: {missing: [NEED], nearest, lacks: [NEED], instead: [NEED]}}]}],
           drained: [{scope, name, since, by, reason, until}]}
          why is "paused", "no-template", "not-before", "drained", "workers-drained", "pressed", "disk-full", "no-worker",
          "needs", "able-busy", "behind", "busy" or "next"; unmet is what no worker has, and the one that comes nearest, or null;
          drained is what gets no job, as of drain; asked is what provisioners have asked for, stage "pending" or "starting";
          ahead are those that go before it; times are in UTC, and null where they are not known
          of a server of the classic protocol: {queues: [{platform, queued, jobs: [{job}]}]}
    """
    printer = standard_output(color)
    remote = options.remote()
    try:
        looked = look(remote, platform=platform)
    except TooOld as error:
        note(f"{error}: here is the order alone")
        report.print_queues(printer, remote.info(), platform=platform, as_json=as_json)
        return
    if platform is not None and not looked.platforms:
        raise Refused(f"unknown platform {printable(platform)}")
    if as_json:
        queues_json = [queue_json(each, looked) for each in looked.platforms]
        drained = [halts.json(each) for each in looked.halts]
        printer.json({"queues": queues_json, "drained": drained}, indent=2)
        return
    now = clock.now()
    queues = [[entry for entry in looked.queued if entry.platform == each.name] for each in looked.platforms]
    is_limited = printer.is_terminal and platform is None and len(looked.queued) > report.MAX_ROWS
    room = max(report.MAX_ROWS, len(queues)) if is_limited else len(looked.queued)
    limits = share([len(entries) for entries in queues], room)
    for index, (each, entries, limit) in enumerate(zip(looked.platforms, queues, limits, strict=True)):
        rows = [
            (
                str(number),
                printable(entry.job),
                words.seconds(entry.due) if entry.due else "",
                start(entry, now),
                why(entry, looked.halts),
            )
            for number, entry in enumerate(entries, start=1)
        ]
        if index:
            printer.line("")
        printer.table(title(each, len(entries)), _COLUMNS, rows, empty="nothing waits", limit=limit)
        for line in provisions.lines(each, looked.now):
            printer.line(line)
    if not looked.platforms:
        printer.line("Queues: no platforms")
    if looked.halts:
        printer.line("")
    for halt in looked.halts:
        printer.line(halts.line(halt))
    if is_limited:
        note("For all of it: builder-client queue | less, or --platform")
