"""``servers``: which servers work on the database, and what they do."""

import click

from builder_client import options, servers
from builder_client.output import standard_output


@click.command("servers")
@options.json_option
@options.color_option
@options.server_options
def command(*, as_json: bool, color: str) -> None:
    """Show the servers of the farm, and what they do.

    Several can work on one database in PostgreSQL. Each says every 5 seconds that it lives; after 15 seconds without, the
    others take over what it had. One of them keeps the schedule: it queues what is due. 'drain' has one hand out no jobs.

    \b
    Examples:
      builder-client servers --color never
      builder-client servers --json | jq -r 'select(.alive | not) | .server'

    \b
    JSON, one object a line:
      {server, address, version, since, heard, alive, keeps_schedule, drained, workers, running, here}
      address: where the others reach it, null: nowhere; heard: its last sign of life, null where there can be no other;
      running: its builds; here: whether it is the one that answers
    """
    printer = standard_output(color)
    found = servers.listed(options.remote())
    if as_json:
        for entry in found.servers:
            printer.json(servers.json(entry, found))
        return
    rows = [servers.row(entry, found.now) for entry in found.servers]
    printer.table("Servers", servers.COLUMNS, rows, empty="none is known")
    for text in filter(None, (servers.differing(found), servers.unreachable(found))):
        printer.line("")
        printer.line(text)
