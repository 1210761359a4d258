"""``compare``: two builds beside each other."""

import click

from builder_client import comparison, options, past, words
from builder_client.errors import Refused
from builder_client.output import standard_output


@click.command("compare")
@click.argument("one", metavar="ID", callback=options.by(words.parse_id), shell_complete=options.completes("builds"))
@click.argument(
    "other",
    metavar="[ID]",
    required=False,
    callback=options.by(words.parse_id),
    shell_complete=options.completes("builds"),
)
@options.json_option
@options.server_options
def command(one: str, other: str | None, *, as_json: bool) -> int:
    """Compare two builds: their scripts and their artifacts.

    Each ID is a uuid, or the begin of one that only one build has. One alone is compared with the last success of its job
    on that platform before it: what has changed since? Where the server still has the artifacts, it is said
    at which byte, counted from 0, those differ, and lines are compared of scripts and of what says what a build was
    made of (build-environment, opam-switch, system-packages). The exit status is 6 where artifacts differ.

    \b
    JSON, one object:
      {one, other, same_script, same_artifacts, same, differing: [{path, one: {size, sha256}, other: …, at}]}
      same is a number of artifacts; one or other is null where a build has no such artifact, and at where the
      contents are not there to be looked at

    \b
    Examples:
      builder-client compare 323b 9f01
      builder-client compare 9f01
    """
    remote = options.remote()
    builds = [past.find(remote, each, what=comparison.WHAT) for each in (one, other) if each is not None]
    if other is None:
        before = builds[0].entry.previous
        if before is None:
            raise Refused(f"{past.uuid_of(builds[0])} has no success before it to be compared with: name another build")
        builds.insert(0, past.find(remote, before.hex, what=comparison.WHAT))
    found = comparison.compare(remote, *builds)
    printer = standard_output()
    if as_json:
        printer.json(comparison.comparison_json(found))
    else:
        comparison.print_comparison(printer, found)
    return 0 if found.are_artifacts_the_same else comparison.NOT_THE_SAME
