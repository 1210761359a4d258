"""Whether a job is reproducible: it is run twice, and what both runs leave is compared."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.errors import BuilderError
from builder.extension.builds import HistoryEntry
from builder.extension.schedule import CheckJob, JobShown, ShowJob
from builder.extension.watching import Changed, What, Why
from builder.history import Cause, Outcome
from builder.model import ScriptJob, printable

from . import comparison, looking, past, subscription
from .comparison import Comparison
from .output import note

if TYPE_CHECKING:
    from .remote import Remote

WHAT = "--check-reproducible"

_LOOKED_AT = 100
"""Builds of the job that are looked at for those two: there may be others, and lost ones, meanwhile. As many entries of
its queue are looked at for the job, which was put to the front."""


_LOOKS = 4
"""How often it is looked for a worker after the first run, before it is said that there is none."""

_PAUSE = 1.0
"""Seconds between these looks, in which a worker comes back that takes one job after the other."""


class CheckFailed(BuilderError):
    """One of the runs did not succeed, or will not come, so there is nothing to compare."""

    exit_code = 1


def check(remote: "Remote", name: str, platform: str | None) -> Comparison:
    """Have a job run twice, wait for both, and compare them. Raises CheckFailed, Refused and TooOld.

    It waits for as long as there are jobs before this one: without a deadline, as it is for observing.
    """
    (shown,) = remote.request(ShowJob(name=name), what=WHAT)
    assert isinstance(shown, JobShown), "the order of messages sees to it"
    where = shown.job.platform if isinstance(shown.job, ScriptJob) else platform
    if where is None:
        raise CheckFailed(f"{printable(name)} is built on every platform: name one with --platform")
    has_asked = False
    before: set[object] = set()
    waiting = _Waiting(remote, name, where)
    for change in subscription.changes(remote, on_break=lambda why: note(printable(why))):
        if not has_asked:  # changes have begun to come: none is missed
            before = {entry.uuid for entry in _newest(remote, name, platform)}
            remote.request(CheckJob(name=name, platform=platform), what=WHAT)
            note(f"Running {printable(name)} twice")
            has_asked = True
        if isinstance(change, Changed) and change.what is What.BEGUN and change.job == name:
            waiting.has_begun = True
        if not isinstance(change, Changed) or change.platform in (None, where):
            waiting.tell()
        if isinstance(change, Changed) and not (
            (change.what is What.FINISHED and change.job == name) or _takes_away(change, name, where)
        ):
            continue
        new = [entry for entry in _newest(remote, name, platform) if entry.uuid not in before]
        if (found := _outcome(remote, new)) is not None:
            return found
        runs = any(entry.outcome is None for entry in new)
        if (
            isinstance(change, Changed)
            and change.what is What.REMOVED
            and not (runs and change.job and change.platform)
        ):
            raise CheckFailed(f"{printable(name)} was taken from the queue or the schedule before it had run twice")
    raise AssertionError("changes come for ever")


class _Waiting:
    """Says why a job waits on a platform, when that changes: how many are before it is said once."""

    def __init__(self, remote: "Remote", name: str, platform: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._remote = remote
        self._name = name
        self._platform = platform
        self._sleep = sleep
        self._said: Why | None = None
        self.has_begun = False
        """Whether it has run: then its worker may be about to come for the second run."""

    def tell(self) -> None:
        """Say why it waits, unless that was said."""
        looks = _LOOKS if self.has_begun else 1
        for left in reversed(range(looks)):
            looked = looking.look(self._remote, entries=_LOOKED_AT, platform=self._platform)
            found = next((entry for entry in looked.queued if entry.job == self._name), None)
            why = None if found is None or found.why is Why.NEXT else found.why
            if why is not Why.NO_WORKER or why is self._said or not left:
                break
            self._sleep(_PAUSE)
        if found is not None and why not in (None, self._said):
            note(f"{printable(self._name)} waits: {looking.why(found, looked.halts)}")
        self._said = why


def _takes_away(change: Changed, name: str, platform: str) -> bool:
    return change.what is What.REMOVED and change.job in (None, name) and change.platform in (None, platform)


def _newest(remote: "Remote", name: str, platform: str | None) -> list[HistoryEntry]:
    found = past.entries(remote, name=name, platform=platform, failed=False, since=None, limit=_LOOKED_AT)
    return [entry for entry in found if entry.uuid is not None]


def _outcome(remote: "Remote", new: list[HistoryEntry]) -> Comparison | None:
    """Return what came of the check; None while there is nothing to be told. Raises CheckFailed."""
    for entry in new:
        if entry.cause is Cause.CHECK and entry.verdict is not None and entry.cause_of is not None:
            one, other = (past.find(remote, uuid, what=WHAT) for uuid in (entry.cause_of, str(entry.uuid)))
            return comparison.compare(remote, one, other)
    for entry in reversed(new):
        if entry.outcome in (Outcome.FAILED, Outcome.ABORTED):
            which = "second" if entry.cause is Cause.CHECK else "first"
            raise CheckFailed(
                f"the {which} run did not succeed: {past.outcome(entry)}; see builder-client log {entry.uuid}"
            )
    return None
