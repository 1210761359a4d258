"""Consoles through breaks of the connection."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from builder.errors import BuilderError
from builder.messages import Output
from builder_client.breaks import CONSOLE_ATTEMPTS, LONGEST_PAUSE, console
from builder_client.errors import ConnectionLost, Refused, Unreachable


def outputs(*lines: str) -> list[Output]:
    return [Output(uuid=UUID(int=1), line=line.encode(), timestamp=1) for line in lines]


def ignore(_trouble: str) -> None:
    """Hear nothing of breaks."""


Attempt = tuple[list[Output], BuilderError | None]


def attempts(*each: Attempt) -> Callable[[], Iterator[Output]]:
    """Return what gives the outputs of one attempt after the other, and then raises its error."""
    left = iter(each)

    def ask() -> Iterator[Output]:
        found, error = next(left)
        yield from found
        if error is not None:
            raise error

    return ask


LOST, GONE = ConnectionLost("lost"), Unreachable("refused")


@pytest.mark.parametrize(
    "each",
    [
        [([], LOST), (outputs("a", "b"), None)],
        [(outputs("a"), LOST), (outputs("a", "b"), None)],
        [(outputs("a"), LOST), ([], GONE), ([], GONE), (outputs("a"), LOST), (outputs("a", "b"), None)],
        [(outputs("a", "b"), LOST), (outputs("a", "b"), None)],
    ],
)
def test_each_line_comes_once(each: list[Attempt]) -> None:
    waits: list[float] = []
    told: list[str] = []
    assert [*console(attempts(*each), on_break=told.append, sleep=waits.append)] == outputs("a", "b")
    assert waits == [2.0**number for number in range(len(each) - 1)]
    assert told[0] == "lost; trying again in 1 s"


def test_waits_begin_anew_after_a_line() -> None:
    waits: list[float] = []
    each: list[Attempt] = [([], LOST), ([], GONE), (outputs("a"), LOST), (outputs("a", "b"), None)]
    assert len([*console(attempts(*each), on_break=ignore, sleep=waits.append)]) == 2
    assert waits == [1, 2, 1]


@pytest.mark.parametrize(
    ("each", "error"),
    [
        ([([], GONE)], GONE),
        ([([], Refused("unknown"))], None),
        ([(outputs("a"), LOST), ([], Refused("unknown"))], LOST),
        ([(outputs("a"), LOST), (outputs("other"), None)], LOST),
    ],
)
def test_what_can_not_be_taken_up(each: list[Attempt], error: BuilderError | None) -> None:
    with pytest.raises(BuilderError) as raised:
        [*console(attempts(*each), on_break=ignore, sleep=lambda _: None)]
    assert raised.value is (error or each[0][1])


def test_it_is_given_up_at_last() -> None:
    waits: list[float] = []
    with pytest.raises(Unreachable, match="refused"):
        [*console(attempts(([], LOST), *[([], GONE)] * 100), on_break=ignore, sleep=waits.append)]
    assert len(waits) == CONSOLE_ATTEMPTS
    assert max(waits) == LONGEST_PAUSE
    assert 60 < sum(waits) < 120
