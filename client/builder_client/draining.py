"""How servers, a platform or a worker are drained, and resumed: the options, and what is asked for and printed."""

from typing import TYPE_CHECKING

import click

from builder.errors import InvalidName, InvalidOptions
from builder.extension.halting import (
    MAX_REASON,
    SERVER,
    AwaitIdle,
    Halt,
    Halted,
    LiftHalt,
    Scope,
    StillRunning,
    Target,
)
from builder.model import printable
from builder.quantities import parse_duration

from . import halts, options, words
from .looking import standing
from .output import note, print_done, standard_output

if TYPE_CHECKING:
    from .remote import Remote

_WHAT = "drain"

platform_option = click.option(
    "--platform", metavar="PLATFORM", shell_complete=options.completes("platforms"), help="That platform's queue."
)
_WORKER = "That worker: its name, or of a classic one its host."
worker_option = click.option("--worker", metavar="NAME", shell_complete=options.completes("workers"), help=_WORKER)
drained_worker_option = click.option(
    "--worker", metavar="NAME", shell_complete=options.completes("drained_workers"), help=_WORKER
)
at_option = click.option(
    "--at",
    metavar="SERVER",
    shell_complete=options.completes("servers"),
    help="That server alone, of several.",
)
reason_option = click.option(
    "--reason", metavar="TEXT", help=f"Why: everyone is told who sees that something waits, in {MAX_REASON} characters."
)
duration_option = click.option(
    "--for",
    "duration",
    metavar="DURATION",
    callback=options.by(lambda text: round(parse_duration(text) * 1000)),
    help="It ends by itself after so long, as 90s, 10m or 2h.",
)


def target(*, server: str | None = None, platform: str | None = None, worker: str | None = None) -> Target:
    """Return what is meant: all servers where nothing is named. Raises UsageError."""
    given = {Scope.SERVER: server, Scope.PLATFORM: platform, Scope.WORKER: worker}
    named = [Target(scope=scope, name=name) for scope, name in given.items() if name is not None]
    if len(named) > 1:
        raise click.UsageError("name one: a server, a --platform or a --worker")
    found = named[0] if named else SERVER
    if found == SERVER and named:
        raise click.UsageError("a server has a name, see 'builder-client servers'")
    try:
        found.check()
    except (InvalidName, InvalidOptions) as error:
        raise click.UsageError(str(error)) from error
    return found


def drain(
    remote: "Remote",
    wanted: Target,
    *,
    reason: str | None,
    duration: int | None,
    wait: bool,
    as_json: bool,
    done: str = "drained",
) -> None:
    """Have no job handed out there, and tell what still runs; ``wait`` until nothing does. Raises Refused, and TooOld."""
    request = Halt(target=wanted, reason=reason, duration=duration)
    try:
        request.check()
    except InvalidOptions as error:
        raise click.UsageError(str(error)) from error
    (reply,) = remote.request(request, what=_WHAT)
    assert isinstance(reply, Halted), "the order of messages sees to it"
    if not as_json:
        still = _still(reply.run) if reply.run else "nothing runs"
        if wanted.scope is Scope.WORKER and not reply.workers:
            still = "no worker of that name is connected"
        standard_output().line(f"{halts.line(reply.halt)}; {still}")
    if wait:
        for message in remote.stream(AwaitIdle(target=wanted), what=_WHAT, is_endless=True):
            if isinstance(message, StillRunning) and message.count != reply.run:
                note(_still(message.count))
        if not as_json and reply.run:
            standard_output().line("Nothing runs any more.")
    still_run = 0 if wait else reply.run
    print_done(
        done, as_json=as_json, **halts.json(reply.halt), running=still_run, workers=reply.workers, changed=reply.is_new
    )


def resume(remote: "Remote", wanted: Target, *, as_json: bool) -> None:
    """Have jobs handed out there again. Raises Refused where it is not drained, and TooOld."""
    remote.request(LiftHalt(target=wanted), what=_WHAT)
    print_done("resumed", as_json=as_json, scope=wanted.scope.value, name=wanted.name or None)


def meant(remote: "Remote", name: str) -> str | None:
    """Return how to resume what is drained and has that name; None if nothing is."""
    looked = standing(remote)
    halt = next((each for each in looked.halts if each.target.name == name), None) if looked else None
    if halt is None:
        return None
    option = {Scope.SERVER: "--at", Scope.PLATFORM: "--platform", Scope.WORKER: "--worker"}[halt.target.scope]
    return f"{halt.target} is drained: 'resume {option} {printable(name)}' ends that"


def _still(count: int) -> str:
    return f"{words.count(count, 'build')} still run{'s' if count == 1 else ''}"
