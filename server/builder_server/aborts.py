"""Why the farm itself ends an attempt: what the history says of it."""

from builder.model import Aborted, printable
from builder.quantities import format_duration

LOST = Aborted(message="worker lost")
SERVER_LIMIT, JOB_LIMIT = "--job-timeout of the server", "--timeout of the job"
"""Whose limit of time it is: the result of a job that reaches it names the option."""

MAX_REASON = 200
"""Characters of what a worker says that are kept."""

FAULT = Aborted(message="the server failed")
"""What the history says of an attempt that ended by an error in the server's own code."""


def cancelled(by: str) -> Aborted:
    """Return what the history says of an attempt that somebody has cancelled."""
    return Aborted(message=f"cancelled by {by}")


def could_not_record(reason: str) -> Aborted:
    """Return what the history says of an attempt that failed by the server's own disk."""
    return Aborted(message=f"the server could not record it: {reason}")


def timeout_after(seconds: float, whose: str) -> Aborted:
    """Return what the history says of a job that has taken so long."""
    return Aborted(message=f"timeout after {format_duration(round(seconds * 1000))} ({whose})")


def silent_for(seconds: float) -> Aborted:
    """Return what the history says of a job that has said nothing for so long."""
    return Aborted(message=f"silent for {format_duration(round(seconds * 1000))} (--max-silent of the job)")


def given_up(reason: str) -> Aborted:
    """Return what the history says of an attempt that its worker wants no more."""
    return Aborted(message=f"the worker gave it up: {printable(reason[:MAX_REASON])}")
