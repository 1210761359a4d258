"""What is drained, as it is said to people and programs."""

from collections.abc import Callable, Iterable

from builder.extension.halting import SERVER, HaltState, Scope, Target
from builder.model import printable

from . import words
from .output import JsonObject, json_text


def sentence(halt: HaltState) -> str:
    """Return what is drained, since when, by whom, until when, and why."""
    until = f", until {words.seconds(halt.until)}" if halt.until else ""
    return f"{halt.target} is drained since {words.seconds(halt.since)} by {printable(halt.by)}{until}{_because(halt)}"


def line(halt: HaltState) -> str:
    """Return the same as a line of its own."""
    text = sentence(halt)
    return text[:1].upper() + text[1:]


def briefly(halts: Iterable[HaltState], of: Callable[[HaltState], bool] = lambda _: True) -> str:
    """Return the first of them in short: that it is drained, and why. Empty where there is none."""
    return next((f"drained{_because(each)}" for each in halts if of(each)), "")


def of_platform(name: str) -> Callable[[HaltState], bool]:
    """Return what tells whether something keeps all jobs from a platform."""
    return lambda halt: halt.target in (SERVER, Target(scope=Scope.PLATFORM, name=name))


def _because(halt: HaltState) -> str:
    return f": {printable(halt.reason)}" if halt.reason else ""


def json(halt: HaltState) -> JsonObject:
    """Return something that is drained."""
    return {
        "scope": halt.target.scope.value,
        "name": json_text(halt.target.name) if halt.target.name else None,
        "since": halt.since.isoformat(),
        "by": json_text(halt.by),
        "reason": json_text(halt.reason),
        "until": halt.until and halt.until.isoformat(),
    }
