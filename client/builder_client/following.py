"""Follows a build: prints its console as it comes, and its result, for people or as JSON."""

from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from builder.messages import Output
from builder.model import Result, RunningBuild, printable

from . import breaks, builds, clock, report, words
from .observation import Ending, split_result
from .output import Printer, note

if TYPE_CHECKING:
    from .remote import Remote


def _tell(trouble: str) -> None:
    note(printable(trouble))


@frozen(kw_only=True)
class Following:
    """How builds are followed. Each method returns the exit status: 0, or the job's where ``exit_status`` is set."""

    remote: "Remote"
    printer: Printer
    as_json: bool
    exit_status: bool

    def next_of(self, job: str) -> int:
        """Wait for the next build of a job, and follow it."""
        first = self.remote.info()
        builds.check_job(first, job)
        note(f"Waiting for the next build of {printable(job)}")
        return self.build(builds.wait_for_next(self.remote.info, first, job=job, now=clock.now))

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
