"""Workers in line: who asks for a job when something comes, and who need not."""

import random

import pytest

from builder.needs import NOTHING, Capabilities
from builder.needs import of_text as needs_of
from builder_server.line import Waiter, WorkerLine
from builder_server.store.waking import Work

KVM = Capabilities.of([("kvm", "yes")])
GPU = Capabilities.of([("label.gpu", "")])
BOTH = Capabilities.of([("kvm", "yes"), ("label.gpu", "")])


@pytest.fixture
def line() -> WorkerLine:
    return WorkerLine(Work())


def refuse_all(line: WorkerLine, *waiters: Waiter) -> int:
    """Have all ask in their turn and get nothing; return how many asked."""
    asked = 0
    while (waiter := next((each for each in waiters if each.turn.is_set()), None)) is not None:
        line.refused(waiter)
        asked += 1
    return asked


def test_whoever_comes_first_of_its_kind_asks(line: WorkerLine) -> None:
    one, other, able = line.join(NOTHING), line.join(NOTHING), line.join(KVM)
    assert [each.turn.is_set() for each in (one, other, able)] == [True, False, False]
    line.refused(one)
    assert [each.turn.is_set() for each in (one, other, able)] == [False, False, True]  # the other is like the one
    line.refused(able)
    assert refuse_all(line, one, other, able) == 0


def test_what_comes_wakes_the_first_that_can_take_it(line: WorkerLine) -> None:
    waiters = [line.join(able) for able in (NOTHING, GPU, KVM, BOTH, NOTHING)]
    assert refuse_all(line, *waiters) == 4
    line.came(["kvm"])
    assert [each.turn.is_set() for each in waiters] == [False, False, True, False, False]
    line.leave(waiters.pop(2))  # it has got a job: there may be more
    assert [each.turn.is_set() for each in waiters] == [False, False, True, False]
    assert refuse_all(line, *waiters) == 1
    line.came([""])
    assert waiters[0].turn.is_set()
    assert refuse_all(line, *waiters) == 1  # what one was refused, the others need not ask for


def test_what_nobody_can_take_wakes_nobody(line: WorkerLine) -> None:
    one = line.join(KVM)
    line.refused(one)
    line.came(["gpu"])
    assert not one.turn.is_set()
    able = line.join(GPU)
    assert able.turn.is_set()  # whoever comes asks for anything


def test_what_comes_while_one_asks_is_not_missed(line: WorkerLine) -> None:
    one, other = line.join(KVM), line.join(GPU)
    line.came(["kvm"])
    line.came(["gpu"])
    line.refused(one)
    assert one.turn.is_set()
    line.refused(one)
    assert other.turn.is_set()
    line.refused(other)
    assert refuse_all(line, one, other) == 0


def test_who_goes_in_its_turn_leaves_it_to_the_next(line: WorkerLine) -> None:
    one, other = line.join(KVM), line.join(KVM)
    line.leave(one)
    assert other.turn.is_set()
    line.leave(other)
    assert not line.is_needed


def test_who_goes_after_it_was_refused_is_followed_by_one_of_its_kind(line: WorkerLine) -> None:
    """It may be the one that has looked for a template."""
    one, other = line.join(KVM), line.join(KVM)
    line.refused(one)
    line.leave(one)
    assert other.turn.is_set()


def test_anything_may_have_come(line: WorkerLine) -> None:
    waiters = [line.join(able) for able in (NOTHING, GPU, NOTHING)]
    refuse_all(line, *waiters)
    line.work.came(None)
    assert refuse_all(line, *waiters) == 2


@pytest.mark.parametrize("seed", range(50))
def test_no_job_stays_while_a_worker_waits_that_can_do_it(seed: int) -> None:
    """Workers and entries come and go in any order."""
    rolled = random.Random(seed)
    line = WorkerLine(Work())
    queue: list[str] = []
    waiting: dict[Waiter, Capabilities] = {}
    asked = 0

    def settle() -> None:
        nonlocal asked
        while (waiter := next((each for each in waiting if each.turn.is_set()), None)) is not None:
            asked += 1
            found = next((needs for needs in queue if not waiting[waiter].lacks(needs_of(needs))), None)
            if found is None:
                line.refused(waiter)
            else:
                queue.remove(found)
                del waiting[waiter]
                line.leave(waiter)

    for _ in range(200):
        match rolled.randrange(4):
            case 0:
                able = rolled.choice([NOTHING, KVM, GPU, BOTH])
                waiting[line.join(able)] = able
            case 1 | 2:
                needs = rolled.choice(["", "kvm", "gpu", "gpu kvm"])
                queue.append(needs)
                line.came([needs])
            case _ if waiting:
                waiter = rolled.choice([*waiting])
                del waiting[waiter]
                line.leave(waiter)
        if rolled.random() < 0.7:
            settle()
    settle()
    assert not [needs for needs in queue for able in waiting.values() if not able.lacks(needs_of(needs))]
    assert asked < 800
