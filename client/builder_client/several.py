"""Several builds observed at once: their lines as they are said, each after the name of its build."""

import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from builder.errors import BuilderError
from builder.messages import Output
from builder.model import Result, RunningBuild, printable

from . import builds, report, words
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
    """What came of one of the builds, by its place among them; None: its end."""

    place: int
    what: Output | Ending | BuilderError | None


def observe(remote: "Remote", printer: Printer, ids: Sequence[str], *, as_json: bool, exit_status: bool) -> int:
    """Print the consoles of builds until all have ended; return the exit status. Raises Refused for an unknown one."""
    if len(ids) > MAX_BUILDS:
        raise BuilderError(f"{MAX_BUILDS} builds can be observed at once")
    running = remote.info()
    uuids, names = [], []
    for each in ids:
        uuid = words.whole_uuid(each)
        build = next((found for found in running.running if found.uuid == uuid), None)
        if uuid is None:
            build = builds.find_build(running, each)
            uuid = build.uuid
        if uuid in uuids:
            continue  # named twice
        uuids.append(uuid)
        names.append(_name(build, uuid))
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
        found = said.get()
        match found.what:
            case Output() if as_json:
                printer.json(report.output_json(found.what))
            case Output():
                report.print_output(printer, found.what, prefixes[found.place])
            case Ending(output=output, result=result):
                results[found.place] = result
                if as_json:
                    printer.json(report.end_json(uuids[found.place], output, result))
                else:
                    report.print_result(printer, output, result, prefixes[found.place])
            case BuilderError():
                errors[found.place] = found.what
                note(f"{names[found.place]}: {printable(str(found.what))}")
            case None:
                left -= 1
    if errors:
        return errors[min(errors)].exit_code
    statuses = [words.exit_status(result) for result in results.values()]
    return next((status for status in statuses if status), 0) if exit_status else 0


def _name(build: RunningBuild | None, uuid: UUID) -> str:
    if build is None:
        return str(uuid)[:8]
    return f"{printable(build.job.name)}@{printable(build.job.platform)}"


def _follow(remote: "Remote", uuid: UUID, place: int, said: "queue.Queue[_Said]") -> None:
    try:
        for part in split_result(remote.observe(uuid)):
            said.put(_Said(place, part))
    except BuilderError as error:
        said.put(_Said(place, error))
    finally:
        said.put(_Said(place, None))
