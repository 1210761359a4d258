"""What builder-server makes for many who ask at once: whose turn it is; replies that all share."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from builder_server.aside import SMALL, Aside, Replies
from builder_server.errors import CommandRefused
from builder_server.shared import KEPT, Shared
from builder_server.turns import Turns


async def test_the_newest_and_the_oldest_have_turns_by_turns() -> None:
    turns = Turns(1)
    had: list[int] = []

    async def have(number: int) -> None:
        async with turns.turn():
            had.append(number)

    async with trio.open_nursery() as nursery, turns.turn():
        for number in range(6):
            nursery.start_soon(have, number)
            await wait_all_tasks_blocked()
    assert had == [5, 0, 4, 1, 3, 2]
    assert turns.free == 1


async def test_who_stops_waiting_has_no_turn() -> None:
    turns = Turns(1)

    async def have() -> None:
        async with turns.turn():
            pass

    async with trio.open_nursery() as nursery, turns.turn():
        nursery.start_soon(have)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert turns.free == 1


async def test_a_turn_that_comes_with_a_cancellation_is_passed_on() -> None:
    turns = Turns(1)

    async def have() -> None:
        async with turns.turn():
            pass

    async with trio.open_nursery() as nursery:
        async with turns.turn():
            nursery.start_soon(have)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert turns.free == 1


class Farm:
    """Something whose replies take a second."""

    def __init__(self, replies: Replies, size: int = 1) -> None:
        self.version = 0
        self.made: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self._replies, self._size = replies, size
        self.shared: Shared[str] = Shared(lambda: self.version, self._make)

    async def _make(self, key: str) -> Aside:
        self.made.append((key, self.version))
        await trio.sleep(1)
        if self.error:
            raise self.error
        return await self._replies.put(key.encode() * self._size)

    async def ask(self, key: str = "a") -> bytes:
        async with self.shared.reply(key) as aside:
            return await aside.read(0, 1)


@pytest.fixture
async def farm(autojump_clock: MockClock) -> Farm:
    return Farm(Replies(Path()))


async def _together(ask: Callable[[], Awaitable[object]], count: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)


async def test_one_is_made_for_all_who_ask_together_and_until_something_changes(
    farm: Farm, autojump_clock: MockClock
) -> None:
    await _together(farm.ask, 50)
    assert await farm.ask() == b"a"
    assert farm.made.count(("a", 0)) <= 2  # who comes a moment after the first shares the next
    farm.version = 1
    await _together(farm.ask, 50)
    assert farm.made.count(("a", 1)) <= 2


async def test_who_asks_while_one_is_made_is_told_what_is_newer(farm: Farm, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.ask)
        await wait_all_tasks_blocked()
        farm.version = 1
        began = trio.current_time()
        await _together(farm.ask, 50)
        assert farm.made == [("a", 0), ("a", 1)]
        assert trio.current_time() - began == pytest.approx(3, abs=0.2)  # the first one, a rest of as long, the second


async def test_others_are_not_waited_for(farm: Farm, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for key in "abc":
            nursery.start_soon(farm.ask, key)
    assert trio.current_time() - began == pytest.approx(1, abs=0.2)
    assert len(farm.made) == 3


async def test_half_of_the_time_nothing_is_made(farm: Farm, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    for _ in range(3):
        farm.version += 1
        await farm.ask()
    assert trio.current_time() - began == pytest.approx(5, abs=0.2)


async def test_whoever_makes_it_may_go_away(farm: Farm, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            with trio.move_on_after(0.5):
                await farm.ask()

        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        nursery.start_soon(farm.ask)
        nursery.start_soon(farm.ask)
    assert len(farm.made) == 2


async def test_all_are_told_why_there_is_none(farm: Farm, autojump_clock: MockClock) -> None:
    farm.error = CommandRefused("the disk is full")
    refused = 0

    async def ask() -> None:
        nonlocal refused
        with pytest.raises(CommandRefused, match="the disk is full"):
            await farm.ask()
        refused += 1

    await _together(ask, 3)
    assert (refused, len(farm.made) <= 2) == (3, True)
    farm.error = None
    assert await farm.ask() == b"a"


async def test_large_ones_go_when_nobody_takes_them_any_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    replies = Replies(tmp_path)
    farm = Farm(replies, SMALL + 1)
    async with trio.open_nursery() as nursery, farm.shared.reply("a"):
        for _ in range(3):
            nursery.start_soon(farm.ask)
        await wait_all_tasks_blocked()
        assert replies.used == SMALL + 1
    assert (replies.used, len(farm.made)) == (0, 1)
    assert list(tmp_path.iterdir()) == []


async def test_not_all_that_was_ever_asked_is_kept(farm: Farm, autojump_clock: MockClock) -> None:
    for number in range(3 * KEPT):
        await farm.ask(str(number))
    assert len(farm.shared._newest) == KEPT
