"""``drain``: no job is handed out, builds go on; the other one of ``drain`` and ``resume``."""

import click

from builder_client import draining, options


@click.command("drain")
@click.argument("named", metavar="[SERVER]", required=False, shell_complete=options.completes("servers"))
@draining.at_option
@draining.platform_option
@draining.worker_option
@draining.reason_option
@draining.duration_option
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@options.json_option
@options.server_options
def command(
    named: str | None,
    *,
    at: str | None,
    platform: str | None,
    worker: str | None,
    reason: str | None,
    duration: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Hand out no job until it is resumed; builds go on.

    Nothing named is all servers of the farm, else it is one of them, a platform or a worker. It stays so when the server is
    started again.
    Whoever looks at what waits is told who has drained it, since when and why. What is drained already gets another
    reason or end, if one is given.

    \b
    Examples:
      builder-client drain --wait && systemctl restart builder-server && builder-client resume
      builder-client drain build-2 --wait
      builder-client drain --worker box-1 --reason 'new disk'
      builder-client drain --platform debian-12 --reason 'mirror is down' --for 2h

    \b
    JSON: {done: "drained", scope, name, since, by, reason, until, running, workers, changed}
      scope: "server", "platform" or "worker"; name: null of all servers; until: null where it does not end by itself;
      running: builds that still run there; workers: how many it concerns; changed: it was not drained before
    """
    if named is not None and at is not None:
        raise click.UsageError("name the server once")
    wanted = draining.target(server=named if at is None else at, platform=platform, worker=worker)
    draining.drain(options.remote(), wanted, reason=reason, duration=duration, wait=wait, as_json=as_json)
