"""When what waits is likely to start, and why it waits."""

from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from builder.extension.watching import QueuedState, RunningState, Why
from builder.history import Cause
from builder.model import Instant
from builder.needs import Capabilities, of_text, text_of
from builder_server.estimates import Circumstances, Waiting, Worker, foresee

NOW = Instant(1_795_194_796_123)


def waits(
    name: str = "a",
    expected: int | None = 60,
    *,
    orb: bool = False,
    paused: bool = False,
    before: int | None = None,
    needs: str = "",
) -> Waiting:
    return Waiting(
        job=name,
        cause=Cause.DUE,
        is_orb=orb,
        is_paused=paused,
        not_before=None if before is None else Instant(NOW.ms + before),
        expected=expected,
        needs=needs,
    )


def runs(since: int, expected: int | None) -> RunningState:
    return RunningState(
        uuid=UUID(int=since),
        job="r",
        platform="p1",
        started=Instant(NOW.ms - since),
        cause=Cause.DUE,
        expected=expected,
    )


def place(
    waiting: int = 0,
    *running: RunningState,
    template: bool = True,
    full: bool = False,
    drained: bool = False,
    pressed: int = 0,
) -> Circumstances:
    return Circumstances(
        platform="p1",
        waiting=waiting,
        running=running,
        has_template=template,
        is_full=full,
        is_drained=drained,
        pressed=pressed,
    )


def told(found: QueuedState) -> tuple[Why, int, int | None]:
    return found.why, found.ahead, None if found.start is None else found.start.ms - NOW.ms


@pytest.mark.parametrize(
    ("where", "entries", "expected"),
    [
        (place(pressed=1), [waits()], [(Why.PRESSED, 0, None)]),
        (place(), [waits(), waits()], [(Why.NO_WORKER, 0, None), (Why.NO_WORKER, 1, None)]),
        (evolve(place(), pressed=1), [waits()], [(Why.PRESSED, 0, None)]),
        (evolve(place(), pressed=1, drained=1), [waits()], [(Why.PRESSED, 0, None)]),
        (evolve(place(0, runs(10, 100)), pressed=1), [waits()], [(Why.BUSY, 0, 90)]),
        (place(1), [waits(), waits()], [(Why.NEXT, 0, 0), (Why.BEHIND, 1, 60)]),
        (place(2), [waits(expected=50), waits(), waits()], [(Why.NEXT, 0, 0), (Why.NEXT, 1, 0), (Why.BEHIND, 2, 50)]),
        (place(0, runs(10, 100)), [waits(), waits()], [(Why.BUSY, 0, 90), (Why.BEHIND, 1, 150)]),
        # longer than expected: at any moment
        (place(0, runs(300, 100)), [waits()], [(Why.BUSY, 0, 0)]),
        # nobody knows when that worker is free again
        (place(0, runs(10, None)), [waits()], [(Why.BUSY, 0, None)]),
        (place(0, runs(10, None), runs(10, 30)), [waits(expected=None), waits()], [(Why.BUSY, 0, 20), (Why.BEHIND, 1, None)]),
        (place(1, full=True), [waits(), waits(paused=True)], [(Why.DISK_FULL, 0, None), (Why.PAUSED, 1, None)]),
        (place(1, drained=True), [waits(), waits(paused=True)], [(Why.DRAINED, 0, None), (Why.PAUSED, 1, None)]),
        # what can't run is passed by
        (place(1, template=False), [waits(orb=True), waits()], [(Why.NO_TEMPLATE, 0, None), (Why.NEXT, 0, 0)]),
        (place(1), [waits(paused=True), waits(orb=True)], [(Why.PAUSED, 0, None), (Why.NEXT, 0, 0)]),
        (place(1), [waits(before=500)], [(Why.NOT_BEFORE, 0, 500)]),
        (place(1), [waits(before=-500)], [(Why.NEXT, 0, 0)]),
    ],
)  # fmt: skip
def test_why_entries_wait(
    where: Circumstances, entries: list[Waiting], expected: list[tuple[Why, int, int | None]]
) -> None:
    assert [told(found) for found in foresee(where, entries, NOW)] == expected


@given(
    st.lists(st.builds(waits, expected=st.none() | st.integers(0, 1000)), max_size=8),
    st.lists(st.builds(runs, st.integers(0, 1000), st.integers(0, 1000)), max_size=3),
    st.integers(0, 3),
)
def test_nothing_starts_before_what_goes_before_it(
    entries: list[Waiting], running: list[RunningState], idle: int
) -> None:
    found = list(foresee(place(idle, *running), entries, NOW))
    starts = [each.start.ms for each in found if each.start]
    assert starts == sorted(starts)
    assert all(start >= NOW.ms for start in starts)
    assert [each.ahead for each in found] == list(range(len(entries)))
    # who is unknown takes a worker away: what is told is what comes first
    assert [each.start is None for each in found] == sorted(each.start is None for each in found)


W1 = Worker(name="w1", able=Capabilities.of([("cores", "4")]), is_waiting=True)
W2 = Worker(name="w2", able=Capabilities.of([("cores", "8"), ("kvm", "yes")]), is_waiting=False)


@pytest.mark.parametrize(
    ("needs", "unmet"),
    [
        ("", None),
        ("kvm", None),
        ("cores>=8 kvm", None),
        ("gpu", ("gpu", "w1", "gpu")),
        ("gpu kvm", ("gpu", "w2", "gpu")),
        ("cores>=6 gpu kvm", ("gpu", "w2", "gpu")),
        ("cores>=9 gpu", ("cores>=9 gpu", "w1", "cores>=9 gpu")),
        ("a b c d", ("a b c", "w1", "a b c")),
    ],
)
def test_what_no_worker_has(needs: str, unmet: tuple[str, str, str] | None) -> None:
    where = evolve(place(1, runs(10, 100)), workers=(W1, W2))
    found = where.unmet(of_text(needs))
    assert (found and (text_of(found.missing), found.nearest, text_of(found.lacks))) == unmet


def test_what_no_worker_has_together() -> None:
    where = evolve(place(2), workers=(W2, evolve(W1, able=Capabilities.of([("label.gpu", "")]))))
    found = where.unmet(of_text("cores>=8 gpu kvm"))
    assert found is not None
    assert (found.missing, found.nearest, text_of(found.lacks)) == ((), "w2", "gpu")


def test_nothing_is_said_of_workers_of_which_it_is_not_known_what_they_have() -> None:
    where = evolve(place(1, runs(10, 100), runs(20, 100)), workers=(W1, W2), unknown=1)
    assert where.unmet(of_text("gpu")) is None


def test_what_needs_more_delays_no_other() -> None:
    where = evolve(place(1, runs(10, 100)), workers=(W1, W2), template_needs=of_text("tape"))
    entries = [waits(needs="gpu"), waits(needs="kvm"), waits(needs="cores>=4"), waits(), waits(orb=True)]
    found = [*foresee(where, entries, NOW)]
    assert [told(each) for each in found] == [
        (Why.NEEDS, 0, None),
        (Why.ABLE_BUSY, 0, None),
        (Why.NEXT, 0, 0),
        (Why.BEHIND, 1, 60),
        (Why.NEEDS, 2, None),
    ]
    assert [each.unmet and text_of(each.unmet.missing) for each in found] == ["gpu", None, None, None, "tape"]
