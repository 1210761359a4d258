"""A server's schedule made equal to a file: what differs, what is sent, and how it is said."""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from builder import codec, der
from builder.errors import BuilderError, ProtocolError
from builder.extension import Request
from builder.extension.applying import Apply, JobsListed, ListedJob, ListedScript, ListJobs, SeenJob
from builder.extension.schedule import ChangeJob, JobShown, PlanJob, ShowJob
from builder.messages import MIB, Message
from builder.model import Job, ScriptJob, printable

from . import jobs, schedule_file
from .schedule_file import Planned

if TYPE_CHECKING:
    from .remote import Remote

Ask = Callable[[Request], list[Message]]

WHAT = "whole schedules"
"""What an older server has not."""

MAX_COMPARED = 200_000
"""Bytes of a script up to which its lines are compared."""


class TooMuch(BuilderError):
    """Changes of more bytes, or jobs, than a server takes at once."""


def listed(ask: Ask) -> dict[str, ListedJob]:
    """Return all jobs of a server by their names."""
    found: dict[str, ListedJob] = {}
    last: str | None = None
    while True:
        (page,) = ask(ListJobs(after=last))
        assert isinstance(page, JobsListed), "a server answers so"
        names = [each.job.name for each in page.jobs]
        if not names or names[-1] in found:
            return found
        found.update(zip(names, page.jobs, strict=True))
        last = names[-1]


def shown(ask: Ask, name: str) -> JobShown:
    """Return a job with its script."""
    (found,) = ask(ShowJob(name=name))
    assert isinstance(found, JobShown), "a server answers so"
    return found


def _same_job(there: ListedScript | Job, here: Job) -> bool:
    if isinstance(there, ListedScript):
        if not isinstance(here, ScriptJob):
            return False
        sha256 = hashlib.sha256(here.script).digest()
        return (there.platform, there.sha256) == (here.platform, sha256)
    return there == here


@frozen(kw_only=True)
class Plan:
    """What is to be done: jobs by their names, and those that are left since they are not in the file."""

    here: Mapping[str, Planned]
    there: Mapping[str, ListedJob]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]

    def request(self, *, run_now: bool) -> Apply | None:
        """Return the request that does it, None where there is nothing to do. Raises TooMuch."""
        if not (self.added or self.changed or self.removed):
            return None
        request = Apply(
            removed=tuple(SeenJob(name=name, revision=self.there[name].revision) for name in self.removed),
            changed=tuple(map(self._change, self.changed)),
            added=tuple(
                PlanJob(job=found.job, options=found.options, run_now=run_now and not found.options.after)
                for found in (self.here[name] for name in self.added)
            ),
        )
        encoded = codec.encode(request)
        try:
            der.check(encoded, max_elements=Apply.max_elements)
        except ProtocolError as error:
            raise TooMuch("these are too many changes at once: apply a file with some of the jobs first") from error
        if len(encoded) > Apply.max_size:
            raise TooMuch(
                f"the changes have more than {Apply.max_size // MIB} MiB: apply a file with some of the jobs first"
            )
        return request

    def _change(self, name: str) -> ChangeJob:
        here, there = self.here[name], self.there[name]
        job = None if _same_job(there.job, here.job) else here.job
        return ChangeJob(name=name, revision=there.revision, options=here.options, job=job)


def plan(here: Mapping[str, Planned], there: Mapping[str, ListedJob], *, prune: bool) -> Plan:
    """Return what makes a server's schedule equal to a file."""
    extra = tuple(sorted(there.keys() - here.keys()))
    return Plan(
        here=here,
        there=there,
        added=tuple(name for name in here if name not in there),
        changed=tuple(name for name, found in here.items() if name in there and not _is_equal(there[name], found)),
        removed=extra if prune else (),
        left=() if prune else extra,
    )


def _is_equal(there: ListedJob, here: Planned) -> bool:
    return _same_job(there.job, here.job) and jobs.said_options(there.options) == jobs.said_options(here.options)


def apply(remote: "Remote", here: Mapping[str, Planned], *, prune: bool, run_now: bool) -> Plan:
    """Make a server's schedule equal to a file, all of it or nothing; return what was done. Raises Refused, and TooOld."""
    with remote.requests(what=WHAT) as ask:
        found = plan(here, listed(ask), prune=prune)
        if (request := found.request(run_now=run_now)) is not None:
            ask(request)
        return found


def diff(ask: Ask, found: Plan) -> Iterator[str]:
    """Yield the lines that tell what a plan would do, as a diff does."""
    for name in found.removed:
        yield f"- job {printable(name)}"
    for name in found.changed:
        yield f"  job {printable(name)}"
        before = shown(ask, name)
        yield from _lines(_told(Planned(job=before.job, options=before.options)), _told(found.here[name]))
        yield from _script_lines(_script(before.job), _script(found.here[name].job))
    for name in found.added:
        yield f"+ job {printable(name)}"
        yield from (f"+   {printable(line)}" for line in _told(found.here[name]))


def _told(planned: Planned) -> list[str]:
    return schedule_file.entries(planned)


def _script(job: Job) -> bytes:
    return job.script if isinstance(job, ScriptJob) else b""


def _lines(before: list[str], after: list[str]) -> Iterator[str]:
    yield from (f"-   {printable(line)}" for line in before if line not in after)
    yield from (f"+   {printable(line)}" for line in after if line not in before)


def _script_lines(before: bytes, after: bytes) -> Iterator[str]:
    if before == after:
        return
    yield "    script"
    if max(len(before), len(after)) > MAX_COMPARED:
        yield f"-     {len(before)} bytes"
        yield f"+     {len(after)} bytes"
        return
    old, new = (script.decode("utf-8", "surrogateescape").splitlines() for script in (before, after))
    for line in difflib.unified_diff(old, new, lineterm="", n=0):
        if not line.startswith(("---", "+++", "@@")):
            yield f"{line[0]}     {printable(line[1:])}"
