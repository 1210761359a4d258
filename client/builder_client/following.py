"""Follows a build: prints its console as it comes, and its result, for people or as JSON."""

from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from builder.extension import MAX_PAGE
from builder.extension.builds import HistoryEntry
from builder.extension.schedule import ShowJob
from builder.extension.watching import Changed, LookAgain, What
from builder.messages import Output
from builder.model import Result, RunningBuild, ScriptJob, printable

from . import breaks, builds, clock, past, report, subscription, words
from .errors import TooOld
from .observation import Ending, split_result
from .output import Printer, note

if TYPE_CHECKING:
    from .remote import Remote


def _tell(trouble: str) -> None:
    note(printable(trouble))


def _tell_waiting(job: str) -> None:
    note(f"Waiting for the next build of {printable(job)}")


def _running(entry: HistoryEntry) -> RunningBuild:
    assert entry.uuid, "it is a build"
    assert entry.started, "it has begun"
    return RunningBuild(
        uuid=entry.uuid, job=ScriptJob(name=entry.name, platform=entry.platform, script=b""), started=entry.started
    )


@frozen(kw_only=True)
class Following:
    """How builds are followed. Each method returns the exit status: 0, or the job's where ``exit_status`` is set."""

    remote: "Remote"
    printer: Printer
    as_json: bool
    exit_status: bool

    def next_of(self, job: str) -> int:
        """Wait for the next build of a job, and follow it. Raises Refused once the server has no such job."""
        try:
            return self.build(_running(self._next_entry(job)))
        except TooOld:
            first = self.remote.info()
            builds.check_job(first, job)
            _tell_waiting(job)
            return self.build(builds.wait_for_next(self.remote.info, first, job=job, now=clock.now))

    def _next_entry(self, job: str) -> HistoryEntry:
        """Wait until the next build of a job has begun, or is found to have begun meanwhile. Raises TooOld and Refused."""
        newest: list[UUID | None] = []
        for change in subscription.changes(self.remote, on_break=_tell):
            match change:
                case Changed(what=What.BEGUN, job=name, uuid=UUID() as uuid) if name == job:
                    return past.find(self.remote, str(uuid), what="history").entry
                case Changed(what=What.REMOVED, job=name) if name in (job, None):
                    self._check_known(job)
                case LookAgain():
                    self._check_known(job)
                    entry = self._newest(job)
                    newest.append(None if entry is None else entry.uuid)
                    if len(newest) == 1:
                        _tell_waiting(job)
                    elif entry is not None and newest[0] != entry.uuid:
                        return entry
        raise AssertionError("the changes never end")

    def _check_known(self, job: str) -> None:
        self.remote.request(ShowJob(name=job), what="jobs by their names")

    def _newest(self, job: str) -> HistoryEntry | None:
        found = past.entries(self.remote, name=job, platform=None, failed=False, since=None, limit=MAX_PAGE)
        return next((entry for entry in found if entry.uuid is not None), None)

    def build(self, build: RunningBuild) -> int:
        """Say which build it is, and follow it."""
        if self.as_json:
            self.printer.json({"type": "build"} | report.build_json(build))
        else:
            note(f"Observing {builds.name_build(build)}")
        return self.uuid(build.uuid)

    def uuid(self, uuid: UUID) -> int:
        """Follow the build with that uuid."""
        printer = self.printer
        result: Result | None = None
        outputs = breaks.console(partial(self.remote.observe, uuid, on_wait=printer.flush), on_break=_tell)
        for part in split_result(outputs):
            match part:
                case Output() if self.as_json:
                    printer.json(report.output_json(part))
                case Output():
                    report.print_output(printer, part)
                case Ending():
                    result = part.result
                    if self.as_json:
                        printer.json(report.end_json(uuid, part.output, result))
                    else:
                        report.print_result(printer, part.output, result)
        return words.exit_status(result) if self.exit_status else 0
