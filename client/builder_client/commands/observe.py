"""``observe``: the console of a build."""

import click

from builder_client import builds, options, several, words
from builder_client.following import Following
from builder_client.output import standard_output


@click.command("observe")
@click.argument(
    "ids",
    metavar="[ID]...",
    nargs=-1,
    callback=lambda context, parameter, value: tuple(
        options.by(words.parse_id)(context, parameter, each) for each in value
    ),
    shell_complete=options.completes("running"),
)
@click.option(
    "--follow-next",
    metavar="JOB",
    shell_complete=options.completes("jobs"),
    help="Wait for the next build of JOB to start. A server that speaks only the classic protocol is asked for its "
    "whole schedule 20 times a second for 30 s, then once a second; a shorter build may be missed there, which is an "
    "error where it can be told.",
)
@options.exit_status_option
@options.json_option
@options.server_options
def command(ids: tuple[str, ...], follow_next: str | None, *, exit_status: bool, as_json: bool) -> int:
    """Show the console of the build ID, and follow it to its end.

    It is shown from its begin, and ends with the result.
    ID is a uuid, or the begin of one that only one running build has. Each line begins with the time since the start.
    A terminal gets control characters escaped; a pipe or a file gets the bytes of the job.

    Of several builds the lines come as they are said, each after the build's name and a bar; it ends when all have ended.
    After a break of the connection it goes on where it broke off, if it can within a minute.

    \b
    Exit status, of several builds:
      that of the first error in the order of IDs, if the console of one could not be shown to its end;
      with --exit-status else that of the first ID whose job did not exit with 0

    \b
    JSON, one object per line:
      {type: "build", uuid, job, platform, started}, unless ID is a whole uuid
      {type: "line", uuid, line, timestamp_ns}, with line_base64 where a line is not UTF-8
      {type: "result", uuid, text, timestamp_ns, result: {kind: "exited", code} |
       {kind: "signalled" | "stopped", signal, name} | {kind: "aborted", message}}

    \b
    Examples:
      builder-client observe 323b
      builder-client observe 323b 94ec --exit-status
      builder-client observe --follow-next hello --exit-status
    """
    if bool(ids) == (follow_next is not None):
        raise click.UsageError("Give either ID or --follow-next JOB.", click.get_current_context())
    remote = options.remote()
    following = Following(remote=remote, printer=standard_output(), as_json=as_json, exit_status=exit_status)
    if follow_next is not None:
        return following.next_of(follow_next)
    if len(ids) > 1:
        return several.observe(remote, following.printer, ids, as_json=as_json, exit_status=exit_status)
    (build,) = ids
    uuid = words.whole_uuid(build)
    if uuid is not None:  # left to the server, which may know builds that are not running
        return following.uuid(uuid)
    return following.build(builds.find_build(remote.info(), build))
