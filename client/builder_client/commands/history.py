"""``history``: finished and running builds, and runs that were left out."""

from collections.abc import Iterator

import click

from builder.extension.builds import HistoryEntry
from builder.model import Instant
from builder.quantities import InvalidQuantity, parse_duration
from builder_client import clock, options, past, planning, words
from builder_client.output import standard_output
from builder_client.remote import Remote


def _since(text: str) -> Instant:
    """Return a time, given as such or as how long ago it was. Raises ValueError."""
    try:
        ago = parse_duration(text)
    except InvalidQuantity:
        try:
            return words.parse_time(text)
        except ValueError as error:
            raise ValueError(f"{error}, or how long ago, as 12h or 2d") from error
    return Instant(max(0, clock.now().ms - round(ago * 1000)))


@click.command("history")
@click.argument("name", metavar="[JOB]", required=False, shell_complete=options.completes("jobs"))
@options.platform_option
@click.option("--failed", is_flag=True, help="Only builds that failed by the job's own doing.")
@click.option(
    "--since",
    metavar="TIME",
    callback=options.by(_since),
    help="Only builds that started from TIME on, or in the last 12h, 2d, ….",
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@options.json_option
@options.color_option
@options.server_options
def command(
    name: str | None,
    platform: str | None,
    since: Instant | None,
    limit: int,
    *,
    failed: bool,
    as_json: bool,
    color: str,
) -> None:
    """Show what became of builds, and why they ran.

    The newest comes first. Runs that were left out, since the one before was still running or queued, are among
    them. CHANGED compares with the last success of the job on that platform: its script, the template that the script
    of an orb-build job is made from, and its artifacts, "unchanged" where all hashes are the same; of a run that was
    compared with another it is the verdict of that.

    \b
    JSON, one object per line:
      {uuid, job, platform, outcome, result, skipped, ended_by, cause, cause_of, retry, retries, due, started,
       finished, took_ms, waited_ms, worker, worker_name, artifacts, artifact_bytes, main_hash, upload, previous,
       script_changed, template_changed, artifacts_changed, away_since, verdict}; what is not known is null, and so is the outcome
      of a running build; template_changed is of orb-build jobs, whose script is the package that they build
      outcome: succeeded, failed (by the job), aborted (by a limit or somebody), lost (by the farm), skipped
      cause: first, due, missed, executed, after, retry, check, lost, imported; result as in observe

    \b
    Examples:
      builder-client history hello --failed
      builder-client history --failed --since 12h
      builder-client history --since 2030-01-31 --limit 1000 --json | jq -r .outcome | sort | uniq -c
    """
    printer = standard_output(color)
    remote = options.remote()
    found = past.entries(remote, name=name, platform=platform, failed=failed, since=since, limit=limit)
    if name is not None and not (platform or failed or since):
        found = _of_known(remote, name, found)
    if as_json:
        for entry in found:
            printer.json(past.json(entry))
    else:
        printer.table("History", past.COLUMNS, [past.row(entry) for entry in found], empty="no builds")


def _of_known(remote: Remote, name: str, found: Iterator[HistoryEntry]) -> Iterator[HistoryEntry]:
    """Yield them; where there are none, see that there is such a job, whose name may be mistyped. Raises Refused."""
    first = next(found, None)
    if first is None:
        planning.find(remote, name, what="history")
        return
    yield first
    yield from found
