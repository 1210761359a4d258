"""Several builds observed at once: their lines as they are said, each after the name of its build."""

import queue
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from builder.errors import BuilderError
from builder.messages import InfoReply, Output
from builder.model import Result, RunningBuild, printable

from . import breaks, builds, report, words
from .observation import Ending, split_result
from .output import Printer, note

if TYPE_CHECKING:
    from .remote import Remote

MAX_BUILDS = 100
"""Most builds at once: each has a connection and a thread."""

_BACKLOG = 1000
"""Lines that wait to be printed; then the builds' connections wait."""


@frozen
class _Said:
    """What came of one of the builds, by its place among them: also why nothing comes for a while. None: its end."""

    place: int
    what: Output | Ending | BuilderError | str | None


def observe(remote: "Remote", printer: Printer, ids: Sequence[str], *, as_json: bool, exit_status: bool) -> int:
    """Print the consoles of builds until all have ended, each once; return the exit status.

    Raises Refused for an unknown one.
    """
    info = remote.info()
    found = dict(_find(info, each) for each in ids)
    if len(found) > MAX_BUILDS:
        raise BuilderError(f"{MAX_BUILDS} builds can be observed at once")
    uuids, names = [*found], _names(found)
    for build in found.values():
        if as_json and build:
            printer.json({"type": "build"} | report.build_json(build))
    width = max(map(len, names))
    prefixes = [printer.coloured(f"{name:<{width}} | ", place) for place, name in enumerate(names)]
    said: queue.Queue[_Said] = queue.Queue(_BACKLOG)
    for place, uuid in enumerate(uuids):
        threading.Thread(target=_follow, args=(remote, uuid, place, said), daemon=True).start()
    results: dict[int, Result | None] = dict.fromkeys(range(len(uuids)))
    errors: dict[int, BuilderError] = {}
    left = len(uuids)
    while left:
        if said.empty():
            printer.flush()
        what, place = (news := said.get()).what, news.place
        match what:
            case Output() if as_json:
                printer.json(report.output_json(what))
            case Output():
                report.print_output(printer, what, prefixes[place])
            case Ending(output=output, result=result):
                results[place] = result
                if as_json:
                    printer.json(report.end_json(uuids[place], output, result))
                else:
                    report.print_result(printer, output, result, prefixes[place])
            case BuilderError() | str():
                note(f"{names[place]}: {printable(str(what))}")
                if isinstance(what, BuilderError):
                    errors[place] = what
            case None:
                left -= 1
    if errors:
        return errors[min(errors)].exit_code
    statuses = [words.exit_status(result) for result in results.values()]
    return next((status for status in statuses if status), 0) if exit_status else 0


def _find(info: InfoReply, digits: str) -> tuple[UUID, RunningBuild | None]:
    """Return the build that is meant, and what is known of it: nothing of one that does not run and is named in full."""
    uuid = words.whole_uuid(digits)
    if uuid is None:
        build = builds.find_build(info, digits)
        return build.uuid, build
    return uuid, next((build for build in info.running if build.uuid == uuid), None)


def _names(found: Mapping[UUID, RunningBuild | None]) -> list[str]:
    """Return what builds are called: job and platform, and where several are of those the begins of their uuids too."""
    names = [
        f"{printable(build.job.name)}@{printable(build.job.platform)}" if build else "" for build in found.values()
    ]
    return [
        name if name and names.count(name) == 1 else f"{name} {words.brief_uuid(str(uuid))}".lstrip()
        for uuid, name in zip(found, names, strict=True)
    ]


def _follow(remote: "Remote", uuid: UUID, place: int, said: "queue.Queue[_Said]") -> None:
    def tell(what: Output | Ending | BuilderError | str | None) -> None:
        said.put(_Said(place, what))

    try:
        for part in split_result(breaks.console(partial(remote.observe, uuid), on_break=tell)):
            tell(part)
    except BuilderError as error:
        tell(error)
    finally:
        tell(None)
