"""A server's schedule made equal to a file: what differs, what is sent, and how it is said."""

import difflib
import hashlib
import itertools
from collections.abc import Container, Iterator, Mapping

from attrs import frozen

from builder import codec, der
from builder.errors import BuilderError, ProtocolError
from builder.extension.applying import Apply, ListedJob, ListedScript, SeenJob, TryApply
from builder.extension.schedule import ChangeJob, JobShown, PlanJob, ShowJob
from builder.messages import MIB
from builder.model import Job, ScriptJob, printable

from . import jobs, schedule_file
from .errors import Refused, Unreachable
from .looking import Ask, listed
from .schedule_file import Planned

WHAT = "whole schedules"
"""What an older server has not."""

MAX_COMPARED = 200_000
"""Bytes of a script up to which its lines are compared."""


TIMEOUT = 600.0
"""Seconds for a server to answer: it does all in one transaction, in which it plans thousands of rules."""

MAX_TRIES = 3
"""How often a schedule is looked at again that others change meanwhile."""


class TooMuch(BuilderError):
    """Changes of more bytes, or jobs, than a server takes at once."""


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

    @property
    def is_change(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.added or self.changed or self.removed)

    def unknown(self) -> dict[str, list[str]]:
        """Return the jobs that others of the file wait for and that are nowhere, and with each those others."""
        known = self.here.keys() | self.there.keys() - {*self.removed}
        found: dict[str, list[str]] = {}
        for name, planned in self.here.items():
            for reference in planned.options.after:
                if reference.name not in known:
                    found.setdefault(reference.name, []).append(name)
        return found

    def request(self, kind: type[Apply], *, run_now: bool) -> Apply | None:
        """Return the request that does it, None where there is nothing to do. Raises TooMuch."""
        if not self.is_change:
            return None
        request = kind(
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


def plan(here: Mapping[str, Planned], there: Mapping[str, ListedJob], *, may_go: Container[str]) -> Plan:
    """Return what makes a server's schedule equal to a file. Of the jobs that are not in it those stay that may not go."""
    extra = sorted(there.keys() - here.keys())
    return Plan(
        here=here,
        there=there,
        added=tuple(name for name in here if name not in there),
        changed=tuple(name for name, found in here.items() if name in there and not _is_equal(there[name], found)),
        removed=tuple(name for name in extra if name in may_go),
        left=tuple(name for name in extra if name not in may_go),
    )


def _is_equal(there: ListedJob, here: Planned) -> bool:
    return _same_job(there.job, here.job) and jobs.said_options(there.options) == jobs.said_options(here.options)


def look(ask: Ask, here: Mapping[str, Planned], *, prune: bool) -> Plan:
    """Return what makes a server's schedule equal to a file; ``prune``: jobs that are not in it go."""
    there = listed(ask)
    return plan(here, there, may_go=there if prune else ())


def apply(ask: Ask, found: Plan, *, run_now: bool, dry_run: bool = False) -> Plan:
    """Do what a plan says, all of it or nothing, or try whether that can be done; return what was done.

    Where others have changed the schedule since it was made, it is made again: the file wins, as it had if they had been
    quicker still. But no job goes that the plan did not name. Raises Refused and Unreachable.
    """
    for _ in range(MAX_TRIES):
        request = found.request(TryApply if dry_run else Apply, run_now=run_now)
        if request is None:
            return found
        try:
            ask(request)
        except Refused as error:
            there = listed(ask)
            if there == found.there:
                raise
            refusal = error
            found = plan(found.here, there, may_go=found.removed)
        except Unreachable as error:
            if dry_run:
                raise
            raise Unreachable(
                f"{error}; it may have been done or not: give the command again, it does the rest"
            ) from error
        else:
            return found
    raise Refused(f"nothing was done, others change the schedule all the time: give the command again ({refusal})")


def removals(found: Plan) -> list[str]:
    """Return a line for each job that goes."""
    return [f"- job {printable(name)}" for name in found.removed]


def diff(ask: Ask, found: Plan) -> Iterator[str]:
    """Yield the lines that tell what a plan would do, as a diff does."""
    yield from removals(found)
    for name in found.changed:
        yield f"  job {printable(name)}"
        before = shown(ask, name)
        yield from _lines(_told(Planned(job=before.job, options=before.options)), _told(found.here[name]))
        yield from _script_lines(_script(before.job), _script(found.here[name].job))
    for name in found.added:
        yield f"+ job {printable(name)}"
        yield from _lines([], _told(found.here[name]))
        yield from _script_lines(b"", _script(found.here[name].job))


def _told(planned: Planned) -> list[str]:
    return schedule_file.entries(jobs.said(planned.job, planned.options))


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
    changed = difflib.unified_diff(_split(before), _split(after), lineterm="", n=0)
    for line in itertools.islice(changed, 2, None):  # behind the names of the two
        if not line.startswith("@@"):
            yield f"{line[0]}     {line[1:]}"


def _split(script: bytes) -> list[str]:
    r"""Return the lines of a script as they are shown: a carriage return as \r, a last line without its end as such."""
    *lines, last = ("\t".join(map(printable, line.split(b"\t"))) for line in script.split(b"\n"))
    return [*lines, f"{last} (without a newline)"] if last else lines
