"""Whether workers come to the server."""

from builder.extension.crew import Doing
from builder_provision.arrivals import Arrivals
from builder_provision.fleet import Asked, EngineState
from builder_provision.ledger import FIRST_PAUSE, LONGEST_PAUSE

NOW = 1_795_194_796.0


def asked(name: str, doing: Doing | None = None) -> Asked:
    return Asked(name=name, platform="p", state=EngineState.STARTED, asked_at=NOW, doing=doing)


def lose(arrivals: Arrivals, *names: str) -> bool:
    """Have workers end that were never seen."""
    for name in names:
        arrivals.ask(name)
    arrivals.note([asked(name) for name in names], NOW)
    return arrivals.note([], NOW)


def test_after_some_that_never_came_fewer_are_asked_for() -> None:
    arrivals = Arrivals()
    assert not lose(arrivals, "a", "b")
    assert arrivals.until <= NOW, "it may have been bad luck"
    assert lose(arrivals, "c")
    assert arrivals.until == NOW + FIRST_PAUSE
    assert not lose(arrivals, "d"), "it was said"
    assert arrivals.until == NOW + 2 * FIRST_PAUSE
    for _ in range(20):
        lose(arrivals, "e")
    assert arrivals.until == NOW + LONGEST_PAUSE


def test_one_that_came_ends_that() -> None:
    arrivals = Arrivals()
    lose(arrivals, "a")
    lose(arrivals, "b")
    arrivals.ask("c")
    arrivals.note([asked("c", Doing.WAITING)], NOW)
    assert not arrivals.note([], NOW)
    assert arrivals.until <= NOW


def test_one_that_came_and_went_between_two_rounds_is_not_lost() -> None:
    arrivals = Arrivals()
    for name in ("a", "b", "c"):
        arrivals.ask(name)
        arrivals.begin()
        assert not arrivals.note([], NOW)
    assert arrivals.until <= NOW


def test_one_that_was_removed_is_not_lost() -> None:
    arrivals = Arrivals()
    for name in ("a", "b", "c"):
        arrivals.ask(name)
        arrivals.give_up(name)
        assert not arrivals.note([], NOW)
