"""``watch``: a server's queues, builds and results as they change."""

import os
import sys

import click

from builder.errors import BuilderError
from builder_client import options
from builder_client.output import standard_output


class NoTerminal(BuilderError):
    """A live view was wanted where there is no terminal."""

    exit_code = 2


@click.command("watch")
@options.json_option
@options.server_options
def command(*, as_json: bool) -> None:
    """Watch queues, running builds and results as they change.

    The console of the selected build is shown below them. It is a subscription: while nothing happens, nothing is sent.
    After a break the client connects again by itself.

    \b
    Keys: arrows or j and k select a running build, q or Ctrl-C quits.

    \b
    JSON, one object a line as things happen; it needs no terminal:
      {type: "look-again"}: from here on changes are told; what was before is not
      {type: "queued" | "begun" | "finished" | "removed" | "scheduled" | "worker-came" | "worker-went" |
              "drained" | "resumed" | "worker-away" | "worker-back",
       job, platform, uuid, outcome}; null where it does not apply
      outcome is "succeeded", "failed", "aborted" or "lost"

    \b
    Examples:
      builder-client watch
      builder-client watch --json | jq -r 'select(.type == "finished") | "\\(.job) \\(.outcome)"'
    """
    remote = options.remote()
    if as_json:
        from builder_client.subscription import print_changes

        print_changes(remote, standard_output())
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()):
        raise NoTerminal("watch needs a terminal; --json prints the changes anywhere")
    if (name := os.environ.get("TERM", "")) in ("", "dumb", "unknown"):
        raise NoTerminal(
            f"watch needs a terminal whose cursor it can move, and TERM is {name or 'not set'!r}; --json prints lines"
        )
    from builder_client.live import show

    show(remote, color=options.color() != "never")
