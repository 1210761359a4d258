"""``workers``: who builds, and what they do."""

import click

from builder.model import printable
from builder_client import options, report, workers
from builder_client.looking import check_platform
from builder_client.output import note, standard_output


@click.command("workers")
@click.option("--platform", metavar="PLATFORM", shell_complete=options.completes("platforms"), help="Only those of it.")
@options.json_option
@options.color_option
@options.server_options
def command(*, platform: str | None, as_json: bool, color: str) -> None:
    """Show the workers: what they do, and what they are.

    One with several slots is there several times. One that is away has lost its connection, and may come back to its
    build for the --grace of the server. Of a worker that waits, its connection is the only sign of life. The load is
    that of its machine when it was heard last, or asked for a job. One of the classic protocol tells nothing of itself, and is called by its
    host. A terminal shows the first 100.

    \b
    Examples:
      builder-client workers
      builder-client workers --json | jq -r 'select(.doing == "away") | .worker'

    \b
    JSON, one object a line:
      {worker, platform, address, holder, doing, since, drained, classic, job, uuid, server, heard, facts}
      doing: "waiting", "building" or "away"; since: when that began; heard: the last sign of life, null while it waits;
      facts: what it tells of itself, texts by their names: version, arch, cores, sandbox, slots, load and others
    """
    printer = standard_output(color)
    remote = options.remote()
    found = workers.pages(remote, platform=platform)
    first = next(found)
    if platform is not None and not first.workers:
        check_platform(remote, platform)
    if as_json:
        for page in (first, *found):
            for entry in page.workers:
                printer.json(workers.json(entry))
        return
    limit = report.MAX_ROWS if printer.is_terminal else None
    shown = [*first.workers]
    for page in found:
        if limit is not None and len(shown) >= limit:
            break
        shown += page.workers
    number = len(shown) if platform is not None else max(len(shown), first.number)
    title = "Workers" if limit is None or number <= limit else f"Workers ({limit} of {number})"
    columns = workers.COLUMNS if len({entry.server for entry in shown}) > 1 else workers.COLUMNS[:-1]
    rows = [workers.row(entry, first.now)[: len(columns)] for entry in shown[:limit]]
    printer.table(title, columns, rows, empty="none is connected")
    if limit is not None and len(shown) >= limit and number > limit:
        note("For all of it: builder-client workers | less")
    if first.absent:
        note(f"not those of servers that do not answer: {', '.join(map(printable, first.absent))}")
    if text := workers.differing(shown, first.release):
        printer.line("")
        printer.line(text)
