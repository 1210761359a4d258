"""Seats of connections: who is waited for goes for a newcomer, the one that was waited for longest before all others."""

from contextlib import ExitStack

import trio
from trio.testing import wait_all_tasks_blocked

from builder.runtime.seats import Seat, Seats


def gone(*seats: Seat) -> list[bool]:
    return [seat.scope.cancel_called for seat in seats]


async def test_nobody_goes_while_there_is_room() -> None:
    seats = Seats(2)
    first = seats.take()
    with first.waiting():
        assert seats.has_room
        second = seats.take()
        assert gone(first, second) == [False, False]


async def test_who_was_waited_for_longest_goes_first() -> None:
    seats = Seats(3)
    first, second, third = (seats.take() for _ in range(3))
    with second.waiting(), first.waiting(), third.waiting():
        seats.take()
        assert gone(first, second, third) == [False, True, False]
        seats.take()
        assert gone(first, second, third) == [True, True, False]


async def test_who_has_begun_to_send_again_is_waited_for_anew() -> None:
    seats = Seats(2)
    first, second = seats.take(), seats.take()
    with first.waiting():
        pass
    with second.waiting(), first.waiting():
        seats.take()
    assert gone(first, second) == [False, True]


async def test_who_has_asked_for_something_goes_after_those_that_have_not() -> None:
    seats = Seats(2)
    asking, silent = seats.take(), seats.take()
    with asking.waiting(has_asked=True), silent.waiting():
        seats.take()
        assert gone(asking, silent) == [False, True]
        seats.take()
        assert gone(asking, silent) == [True, True]


async def test_who_is_served_never_goes() -> None:
    seats = Seats(2)
    first, second = seats.take(), seats.take()
    assert not seats.has_room
    there_is_room = trio.Event()

    async def come() -> None:
        await seats.wait_room()
        there_is_room.set()

    for make_room in (lambda stack: stack.enter_context(first.waiting()), lambda _stack: second.leave()):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            await wait_all_tasks_blocked()
            assert not there_is_room.is_set()
            with ExitStack() as stack:
                make_room(stack)
                await there_is_room.wait()
        there_is_room = trio.Event()
    assert gone(first, second) == [False, False]


async def test_who_was_let_in_by_room_that_is_no_more_is_one_too_many() -> None:
    seats = Seats(1)
    first = seats.take()
    second = seats.take()
    assert gone(first, second) == [False, False]
    assert not seats.has_room
    first.leave()
    assert not seats.has_room
    second.leave()
    assert seats.has_room
