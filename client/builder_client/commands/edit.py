"""``edit``: change a job of the schedule."""

from typing import BinaryIO

import click
from attrs import evolve

from builder.errors import InvalidOptions
from builder.extension.schedule import JobShown
from builder.model import Job, OrbBuildJob, printable
from builder_client import changes, options, planning
from builder_client.errors import TooOld
from builder_client.output import json_text, print_done, standard_output
from builder_client.scripts import read_script


@click.command("edit")
@options.job_argument
@click.option("--script", metavar="FILE", type=click.File("rb"), help="Another script; - is standard input.")
@click.option(
    "--platform",
    metavar="PLATFORM",
    callback=options.by(options.name("platform name")),
    shell_complete=options.completes("platforms"),
    help="Another platform.",
)
@click.option("--opam-package", metavar="OPAM", help="Another package, of an orb build.")
@planning.editing_options
@options.json_option
@options.server_options
def command(
    name: str,
    script: BinaryIO | None,
    platform: str | None,
    opam_package: str | None,
    *,
    as_json: bool,
    **found: object,
) -> None:
    """Change how the job NAME is run, or what it runs.

    What is not given stays. It prints what has changed. Builds keep the script that they ran; the history stays.
    --period takes the place of a rule, --after of all jobs that it waited for. With
    --after a daily job runs no more each day, unless --period daily is given, and with --no-after it does again. Any
    other period stays, also beside a rule: --no-cron gives it back.
    If somebody else has changed the job meanwhile, it is tried once more, unless both changed the same. Of a server that
    speaks only the classic protocol it changes the period.

    \b
    JSON: {done: "edited", job, changed: {key: {before, after}}}, values in words

    \b
    Examples:
      builder-client edit hello --cron '0 4 * * *' --priority 7
      builder-client edit hello --script hello.sh --no-timeout
    """
    values = planning.given(found)
    new = {
        "script": None if script is None else read_script(script),
        "platform": platform,
        "opam_package": opam_package,
    }
    what = {key: value for key, value in new.items() if value is not None}
    if not values and not what:
        raise click.UsageError("Say what to change.", click.get_current_context())

    def make(seen: JobShown) -> changes.Made:
        return _job(seen.job, what), planning.options_of(name, values, seen.options)

    remote = options.remote()
    try:
        done = changes.change(remote, name, make, what="edit")
    except TooOld:
        if values.keys() != {"period"} or what:
            raise
        done = changes.change_period(remote, name, make)
    if "after" in values:
        planning.note_unknown(remote, planning.options_of(name, {"after": values["after"]}))
    changed = {
        difference.key: {"before": json_text(difference.before), "after": json_text(difference.after)}
        for difference in done
    }
    print_done("edited", as_json=as_json, job=name, changed=changed)
    if as_json:
        return
    printer = standard_output()
    for difference in done:
        printer.line(str(difference))
    if not done:
        printer.line(f"{printable(name)} is so already: nothing was changed")


def _job(job: Job, what: dict[str, bytes | str]) -> Job:
    keys = {"opam_package"} if isinstance(job, OrbBuildJob) else {"script", "platform"}
    if wrong := sorted(what.keys() - keys):
        kind = "an orb build" if isinstance(job, OrbBuildJob) else "a script job"
        raise InvalidOptions(f"{printable(job.name)} is {kind}: it has no --{wrong[0].replace('_', '-')}")
    return evolve(job, **what)  # type: ignore[arg-type]  # the keys are those of this job
