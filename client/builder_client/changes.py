"""Changes of a job that is in the schedule: as it was seen, and once more where somebody else was quicker."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from builder.extension.schedule import ChangeJob, JobShown
from builder.messages import Reschedule
from builder.model import Job, printable
from builder.planning import JobOptions

from . import clock, jobs, planning, words
from .errors import Refused

if TYPE_CHECKING:
    from .remote import Remote

Made = tuple[Job, JobOptions]
"""What a job is after a change."""

Change = Callable[[JobShown], Made]
"""What is to be made of a job as it was seen."""


@frozen
class Difference:
    """A key whose value was changed, in words."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def differences(before: Made, after: Made) -> list[Difference]:
    """Return what two states of a job do not have in common."""
    old, new = _words(*before), _words(*after)
    none = jobs.in_words(None)
    return [
        Difference(key, old.get(key, none), new.get(key, none))
        for key in {**old, **new}
        if old.get(key, none) != new.get(key, none)
    ]


def _words(job: Job, plan: JobOptions) -> Mapping[str, str]:
    said = {key: jobs.in_words(value) for key, value in jobs.said(job, plan).items()}
    script = getattr(job, "script", None)
    return said if script is None else said | {"script": describe_script(script)}


def describe_script(script: bytes) -> str:
    """Return what a script is called where it is not shown."""
    import hashlib

    return f"{words.count(len(script), 'byte')}, SHA-256 {hashlib.sha256(script).hexdigest()[:12]}"


def change(remote: "Remote", name: str, make: Change, *, what: str) -> list[Difference]:
    """Change a job, and return what is another now; nothing is sent where nothing is.

    A change that another one has overtaken is made once more, unless both were about the same. Raises Refused.
    """
    seen = planning.find(remote, name, what=what)
    wanted = differences(_state(seen), make(seen))
    try:
        return _send(remote, seen, make, what=what)
    except Refused:
        now = planning.find(remote, name, what=what)
        if now.revision == seen.revision:
            raise
        mine = {each.key for each in wanted}
        theirs = [each for each in differences(_state(seen), _state(now)) if each.key in mine]
        if theirs:
            raise Refused(
                f"{printable(name)} was changed meanwhile ({', '.join(map(str, theirs))}): give the command again if you "
                f"still want it"
            ) from None
        return _send(remote, now, make, what=what)


def _state(shown: JobShown) -> Made:
    return shown.job, shown.options


def _send(remote: "Remote", seen: JobShown, make: Change, *, what: str) -> list[Difference]:
    job, plan = make(seen)
    found = differences(_state(seen), (job, plan))
    if found:
        new = None if job == seen.job else job
        request = ChangeJob(name=seen.job.name, revision=seen.revision, options=plan, job=new)
        remote.request(request, what=what)
    return found


def change_period(remote: "Remote", name: str, make: Change) -> list[Difference]:
    """Change the period of a job of an older server, where nothing else of it is lost. Raises Refused."""
    seen = planning.find_anywhere(remote, name)
    job, plan = make(seen)
    found = differences(_state(seen), (job, plan))
    if found:
        now = clock.now()
        following = plan.next_after(name, now, now)  # as another server plans a job whose period is changed
        remote.ask(Reschedule(name=name, next=following, period=plan.runs_every))
    return found


def set_paused(remote: "Remote", name: str, *, paused: bool) -> bool:
    """Pause or resume a job; return whether it was not so before. Raises Refused, and TooOld."""
    found = change(
        remote, name, lambda seen: (seen.job, evolve(seen.options, paused=paused)), what="jobs that are paused"
    )
    return bool(found)
