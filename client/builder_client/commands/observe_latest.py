"""``observe-latest``: the console of the running build that started last."""

import click

from builder_client import builds, options
from builder_client.following import Following
from builder_client.output import standard_output


@click.command("observe-latest")
@click.option(
    "--platform", metavar="PLATFORM", shell_complete=options.completes("platforms"), help="Only builds there."
)
@click.option("--job", metavar="JOB", shell_complete=options.completes("jobs"), help="Only builds of that job.")
@options.exit_status_option
@options.json_option
@options.server_options
def command(platform: str | None, job: str | None, *, exit_status: bool, as_json: bool) -> int:
    """Observe the running build that started last; see observe.

    \b
    JSON: as of observe

    \b
    Examples:
      builder-client observe-latest
      builder-client observe-latest --job hello --exit-status
    """
    remote = options.remote()
    following = Following(remote=remote, printer=standard_output(), as_json=as_json, exit_status=exit_status)
    return following.build(builds.newest_build(remote.info(), job=job, platform=platform))
