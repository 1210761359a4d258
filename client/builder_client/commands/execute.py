"""``execute``: put a job at the front."""

import click

from builder.messages import Execute
from builder_client import options, words
from builder_client.output import note, print_done, standard_output


@click.command("execute")
@options.job_argument
@click.option(
    "--platform",
    metavar="PLATFORM",
    shell_complete=options.completes("platforms"),
    help="Only there.  [default: everywhere]",
)
@click.option(
    "--check-reproducible",
    "is_check",
    is_flag=True,
    help="Run it twice, by another worker where one is free, wait, and compare what both runs leave.",
)
@options.json_option
@options.server_options
def command(name: str, platform: str | None, *, is_check: bool, as_json: bool) -> int:
    """Run the job NAME as soon as a worker is free.

    It is put at the front of its queue, or of those of all platforms. With --check-reproducible the exit status is 6
    where both runs do not leave the same; the verdict is in the history. While it waits for a worker, it says why.

    \b
    JSON: {done: "executed", job, platform}, of which platform is null where it is everywhere; with --check-reproducible one
      object, as of compare

    \b
    Examples:
      builder-client execute hello
      builder-client execute retreat --platform debian-12
      builder-client execute hello --check-reproducible
    """
    remote = options.remote()
    if not is_check:
        remote.ask(Execute(name=name, platform=platform))
        print_done("executed", as_json=as_json, job=name, platform=platform)
        return 0
    from builder_client import checking, comparison

    found = checking.check(remote, name, platform)
    printer = standard_output()
    if as_json:
        printer.json(comparison.comparison_json(found))
    elif found.are_artifacts_the_same and not found.same:
        printer.line("Reproducible, but neither run left any artifact")
    elif found.are_artifacts_the_same:
        printer.line(f"Reproducible: both runs left the same {words.count(found.same, 'artifact')}")
    else:
        printer.line(f"Not reproducible: {comparison.describe(found.differing[0])}")
        note(f"See builder-client compare {found.one.entry.uuid} {found.other.entry.uuid}")
    return 0 if found.are_artifacts_the_same else comparison.NOT_THE_SAME
