"""``log``: the console of a build."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import click

from builder.messages import Output
from builder.model import printable
from builder_client import breaks, builds, consoles, options, past, report
from builder_client.errors import Refused, TooOld
from builder_client.observation import split_result
from builder_client.output import note, standard_output

_UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)")


def _since(text: str) -> int:
    """Return the nanoseconds of a time since the start of a build. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("write a time since the start of the build, such as 90s, 10m or 1.5h")
    return int(float(match[1]) * _UNITS[match[2]])


def _pattern(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error


@click.command("log")
@options.build_argument
@click.option("-f", "--follow", is_flag=True, help="Go on while the build runs.")
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0), help="Only the last N lines, and what follows.")
@click.option("--raw", is_flag=True, help="The lines alone, byte for byte, also on a terminal.")
@click.option(
    "--since",
    metavar="TIME",
    callback=options.by(_since),
    help="Only lines from TIME after the start on: 90s, 10m, 1.5h.",
)
@click.option(
    "--grep",
    metavar="PATTERN",
    callback=options.by(_pattern),
    help="Only lines in which this regular expression is found; with --tail the last N of these.",
)
@options.json_option
@options.server_options
def command(
    build: str,
    tail: int | None,
    since: int | None,
    grep: re.Pattern[bytes] | None,
    *,
    follow: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the console of the build ID, finished or running.

    ID is a uuid, or the begin of one that only one build has. Each line begins with the time since the start. A terminal
    gets control characters escaped, without --raw; a pipe or a file gets the bytes of the job. With --tail or --since only
    that part of the console is read and sent, however long it is. With --follow it goes on where it was after the
    connection was lost, and ends when the build does. Of a server of the classic protocol it shows running builds, with
    --follow.

    \b
    JSON, one object per line: {type: "line", uuid, line, timestamp_ns}, with line_base64 where a line is not UTF-8

    \b
    Examples:
      builder-client log 323b --tail 20
      builder-client log 323b --follow --grep 'error|warning'
    """
    remote = options.remote()
    printer = standard_output()
    try:
        shown = past.find(remote, build, what=consoles.WHAT)
    except TooOld:
        if not follow or tail is not None:
            raise
        uuid = builds.find_build(remote.info(), build).uuid
        ask = partial(remote.observe, uuid, on_wait=printer.flush)
        replies = split_result(breaks.console(ask, on_break=_tell))
        said = (reply for reply in replies if isinstance(reply, Output))
        chosen: Iterator[Output] = filter(_wanted(since or 0, grep), said)
    else:
        uuid = past.uuid_of(shown)
        if shown.console_size is None and shown.entry.finished is not None and shown.absent is None:
            raise Refused(f"the server has no console of {uuid} any more; 'result {uuid}' shows what became of it")
        console = consoles.RemoteConsole(remote=remote, uuid=uuid, on_wait=printer.flush)
        chosen = _chosen(console, tail, since or 0, grep, follow=follow)
    for output in chosen:
        if as_json:
            printer.json(report.output_json(output))
        elif raw:
            printer.write(output.line + b"\n")
        else:
            report.print_output(printer, output)


def _tell(why: str) -> None:
    note(printable(why))


def _wanted(since: int, grep: re.Pattern[bytes] | None) -> Callable[[Output], bool]:
    return lambda output: (output.timestamp or 0) >= since and (grep is None or grep.search(output.line) is not None)


def _chosen(
    found: consoles.RemoteConsole, tail: int | None, since: int, grep: re.Pattern[bytes] | None, *, follow: bool
) -> Iterator[Output]:
    is_wanted = _wanted(since, grep)
    offset = found.find_time(since) if since else 0
    last = tail
    if tail is not None and (grep is not None or since):
        wanted, offset = found.last_wanted(tail, is_wanted, offset=offset)
        yield from wanted
        if not follow:
            return
        last = None
    if last is not None:
        offset = 0
    lines = found.follow(offset=offset, last=last, on_break=_tell) if follow else found.lines(offset=offset, last=last)
    yield from filter(is_wanted, lines)
