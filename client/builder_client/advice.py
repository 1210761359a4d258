"""What a person can do about what a server, or a look at it, has refused, and where there is no answer at all.

Servers of any age refuse in the same words, which other clients know. What to do next is a command of this client: so it
is said here, in the same line.
"""

import re
from collections.abc import Callable, Iterable

import click

from builder.errors import BuilderError
from builder.messages import InfoReply, UndropPlatform
from builder.model import printable

from . import completion, options, words
from .errors import Refused, Unreachable

Look = Callable[[], InfoReply | None]
"""What asks the server for all that it has; None where it does not answer soon."""

MAX_NAMES = 5000
"""Most names among which a similar one is looked for: it takes a tenth of a second."""

MAX_LISTED = 8
"""Most names that are listed."""


def advised(error: Refused | Unreachable) -> Refused | Unreachable:
    """Return the same error with what to do next, as far as that is known."""
    if isinstance(error, Unreachable):
        step = next((step for pattern, step in _UNREACHED if re.search(pattern, str(error))), None)
        return Unreachable(f"{error}; {step}") if step else error
    step = next_step(error, _look)
    return Refused(f"{error}; {step}", request=error.request) if step else error


def next_step(refused: Refused, look: Look) -> str | None:
    """Return what to do next."""
    for pattern, find in _STEPS:
        if match := re.search(rf"(?:^|: )(?:{pattern})$", str(refused)):
            return find(match, refused, look)
    return None


def _look() -> InfoReply | None:
    try:
        return completion.quick(options.servers(click.get_current_context())).info()
    except BuilderError:
        return None


_Step = Callable[[re.Match[str], Refused, Look], str | None]


def _always(text: str) -> _Step:
    return lambda _match, _refused, _look: text


def _similar(name: str, known: Iterable[str]) -> str | None:
    names = sorted(set(known))
    near = words.near(name, names) if len(names) <= MAX_NAMES else None
    if near is not None:
        return f"did you mean {printable(near)}?"
    return f"there are {', '.join(map(printable, names))}" if 0 < len(names) <= MAX_LISTED else None


def _job(_match: re.Match[str], refused: Refused, look: Look) -> str:
    """Name a job that may have been meant."""
    info = look()
    if info is not None and not info.schedule:
        return "there are no jobs: 'schedule' adds one"
    known = [item.job.name for item in info.schedule] if info else ()
    return _similar(refused.name or "", known) or "'info' lists all jobs"


def _platform(_match: re.Match[str], refused: Refused, look: Look) -> str:
    info = look()
    is_dropped = isinstance(refused.request, UndropPlatform)
    if info is not None and is_dropped and not info.dropped_platforms:
        return "no platform is dropped"
    known: Iterable[str] = ()
    if info is not None:
        known = info.dropped_platforms if is_dropped else [queue.platform for queue in info.queues]
    wanted = getattr(refused.request, "platform", None) or ""
    return _similar(wanted, known) or "'info' lists all platforms"


def _not_running(_match: re.Match[str], refused: Refused, look: Look) -> str:
    """Say where a job is that does not run; ``name`` may be the begin of a uuid as well."""
    info, name = look(), refused.name
    if info is not None and name is not None:
        if any(job.name == name for queue in info.queues for job in queue.jobs):
            return f"it is queued: 'dequeue {printable(name)}' takes it from there, 'queue' says why it waits"
        if any(item.job.name == name for item in info.schedule):
            return f"'next {printable(name)}' says when it runs, 'history {printable(name)}' what became of it"
    return "'info' lists what runs, 'history' what has ended"


def _not_queued(_match: re.Match[str], refused: Refused, look: Look) -> str:
    info, name = look(), refused.name
    if info is not None and name is not None and any(build.job.name == name for build in info.running):
        return f"it runs: 'cancel {printable(name)}' ends it"
    return "'queue' shows what waits"


_UNREACHED = (
    (
        "^none of [0-9]+ servers answers",
        "start one of them, or name others with -r HOST:PORT,HOST:PORT (see 'builder-client --help')",
    ),
    (
        r"^can't reach the server at [^;]*: [^;:]*\b[Nn]ame\b[^;:]*$",
        "is the name right, and can this machine look it up? -r HOST:PORT names another server",
    ),
    (
        "^can't reach the server at [^;]*$",
        "start builder-server there, or name another server with -r HOST:PORT (see 'builder-client --help')",
    ),
    (
        " did not answer within [^;]*$",
        "its log may say why; what changes the schedule may be done all the same: 'info' shows that",
    ),
    (
        "^lost the connection to [^;]*$|before it had answered in full$",
        "what changes the schedule may be done or not: 'info' shows that; else try again",
    ),
)
"""What is said where a server does not answer, and what to do; whatever is not here says so itself."""

_STEPS: tuple[tuple[str, _Step], ...] = (
    ("job name already used", _always("'edit' changes that job, 'unschedule' removes it")),
    ("unknown job .*|job not found", _job),
    ("unknown platform .*|no such platform", _platform),
    ("platform dropped; can't schedule jobs", _always("'undrop-platform' lets it have jobs again")),
    ("job is for a different platform: .*", _always("name that one, or none")),
    (r"there are \d+ platforms already; drop one.*", _always("'drop-platform' does")),
    (r"there are \d+ workers and observers already", _always("try again when some have gone")),
    ("nothing runs.*|no running build of .*", _not_running),
    ("no running build.*|uuid not found", _always("'info' lists what runs, 'history' what has ended")),
    ("no build has a uuid.*|there is no build .*", _always("'history' lists all")),
    (".* is in no queue.*", _not_queued),
    (".* is ambiguous: .*", _always("give more of its digits")),
    ("the server failed: .*", _always("its log says more")),
    ("jobs would wait for each other: .*", _always("take one of these from what another is after")),
)
"""Ends of what is refused, and what finds the next step."""
