"""Passwords: whose are right, at once and later, and what a flood of wrong ones costs others."""

import base64
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from builder_web import access
from builder_web.access import Access, Credentials, TooManyFailures, parse
from builder_web.store.records import Password, User

CHEAP = {"n": 2, "r": 1, "p": 1}


def user_of(name: str, password: bytes) -> User:
    made = access.new_password(password, **CHEAP)
    return User(
        id=len(name),
        username=name,
        password_hash=made.hash,
        password_salt=made.salt,
        scrypt_n=made.n,
        scrypt_r=made.r,
        scrypt_p=made.p,
        restricted=False,
    )


@define
class Users:
    """The users of a database, and how often a password was computed."""

    known: dict[str, User] = field(factory=dict)
    computed: list[str] = field(factory=list)

    async def find(self, name: str) -> User | None:
        return self.known.get(name)

    def add(self, name: str, password: bytes) -> None:
        self.known[name] = user_of(name, password)


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Users:
    found = Users()
    found.add("ann", b"right")
    found.add("bob", b"also right")
    real = access._fits

    def counted(user: User | None, password: bytes) -> bool:
        found.computed.append(user.username if user else "")
        return real(user, password) if user else False

    monkeypatch.setattr(access, "_fits", counted)
    return found


async def check(made: Access, name: str, password: bytes, address: str = "192.0.2.1") -> bool:
    return await made.check(Credentials(username=name, password=password), address) is not None


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("Bearer abc", None),
        ("Basic", None),
        ("Basic !", None),
        ("Basic " + base64.b64encode(b"no colon").decode(), None),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), None),
        (
            "basic " + base64.b64encode("änn:a:\xff".encode("latin-1").replace(b"\xe4", "ä".encode())).decode(),
            ("änn", b"a:\xff"),
        ),
    ],
)
def test_headers(header: str | None, found: tuple[str, bytes] | None) -> None:
    assert parse(header) == (found and Credentials(username=found[0], password=found[1]))


async def test_a_right_password_is_computed_once_in_a_while(users: Users, autojump_clock: MockClock) -> None:
    made = Access(users.find, trio.current_time)
    for _ in range(50):
        assert await check(made, "ann", b"right")
    assert users.computed == ["ann"]
    await trio.sleep(access.REMEMBER + 1)
    assert await check(made, "ann", b"right")
    assert users.computed == ["ann"] * 2
    assert not await check(made, "ann", b"wrong")
    assert not await check(made, "nobody", b"right")
    assert not await made.check(None, "192.0.2.1")


async def test_who_comes_again_and_again_is_held_up_by_nobody(users: Users, autojump_clock: MockClock) -> None:
    made = Access(users.find, trio.current_time)
    assert await check(made, "ann", b"right")
    async with trio.open_nursery() as nursery:

        async def guess() -> None:
            while True:
                with suppress(TooManyFailures):
                    await check(made, "ann", b"wrong")
                await trio.sleep(1)

        for _ in range(2 * access.MAX_WAITING):
            nursery.start_soon(guess)
        for _ in range(3):
            await trio.sleep(0.9 * access.REMEMBER)
            began = trio.current_time()
            assert await check(made, "ann", b"right")
            assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_a_password_that_was_changed_or_removed_is_noticed_at_once(
    users: Users, autojump_clock: MockClock
) -> None:
    made = Access(users.find, trio.current_time)
    assert await check(made, "ann", b"right")
    users.add("ann", b"new")
    assert not await check(made, "ann", b"right")
    assert await check(made, "ann", b"new")
    users.known["ann"] = evolve(users.known["ann"], password_hash=b"", password_salt=b"")  # user-disable
    assert not await check(made, "ann", b"new")
    del users.known["ann"]
    assert not await check(made, "ann", b"new")


async def test_a_user_whose_password_another_has_is_not_taken_for_it(users: Users, autojump_clock: MockClock) -> None:
    users.known["eve"] = evolve(users.known["ann"], id=99, username="eve")
    made = Access(users.find, trio.current_time)
    found = [await made.check(Credentials(username=name, password=b"right"), "192.0.2.1") for name in ("ann", "eve")]
    assert [user and user.id for user in found] == [3, 99]


async def test_wrong_passwords_are_answered_later_and_later(users: Users, autojump_clock: MockClock) -> None:
    made = Access(users.find, trio.current_time)
    times = []
    for _ in range(15):
        began = trio.current_time()
        assert not await check(made, "ann", b"wrong")
        times.append(trio.current_time() - began)
    assert times[:5] == [0] * 5
    assert times == sorted(times)
    assert times[-1] == access.MAX_DELAY
    await trio.sleep(access.FORGET)
    began = trio.current_time()
    assert not await check(made, "ann", b"wrong")
    assert trio.current_time() == began


async def test_a_flood_of_wrong_ones_does_not_stop_right_ones(users: Users, autojump_clock: MockClock) -> None:
    """Of those who try at once from one address one is answered at a time, and few may wait."""
    made = Access(users.find, trio.current_time)
    assert await check(made, "bob", b"also right", "198.51.100.1")
    answers: list[bool | None] = []

    async def try_wrong() -> None:
        try:
            answers.append(await check(made, "ann", b"wrong", "203.0.113.7"))
        except TooManyFailures:
            answers.append(None)

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(try_wrong)
        await trio.sleep(1)
        began = trio.current_time()
        assert await check(made, "ann", b"right", "198.51.100.2")  # from elsewhere
        assert await check(made, "bob", b"also right", "203.0.113.7")  # from there, remembered
        assert trio.current_time() - began < 0.1
    assert len(answers) == 500
    assert answers.count(None) > 480  # most are not even looked at
    assert True not in answers
    assert trio.current_time() < began + 120


async def test_many_who_come_at_once_for_the_first_time(users: Users, autojump_clock: MockClock) -> None:
    made = Access(users.find, trio.current_time)
    answers: list[bool] = []

    async def come() -> None:
        answers.append(await check(made, "ann", b"right"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(come)
    assert answers == [True] * 100
    assert users.computed == ["ann"]


async def test_addresses_and_passwords_are_remembered_within_bounds(
    users: Users, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_ADDRESSES", 20)
    monkeypatch.setattr(access, "MAX_REMEMBERED", 20)
    made = Access(users.find, trio.current_time)
    for index in range(50):
        assert not await check(made, "nobody", b"x", f"10.0.0.{index}")
        users.add(f"user-{index}", b"right")
        assert await check(made, f"user-{index}", b"right")
    assert (len(made._failures), len(made._remembered)) == (20, 20)


async def test_addresses_of_one_network_count_as_one(users: Users, autojump_clock: MockClock) -> None:
    made = Access(users.find, trio.current_time)
    for index in range(12):
        began = trio.current_time()
        assert not await check(made, "ann", b"wrong", f"2001:db8:1:2::{index:x}")
    assert trio.current_time() - began > 1


def test_who_is_not_there_takes_as_long_as_who_is(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[int, int, int]] = []
    real: Callable[..., bytes] = access.hash_password

    def noted(password: bytes, *, salt: bytes, n: int, r: int, p: int) -> bytes:
        costs.append((n, r, p))
        return real(password, salt=salt, n=n, r=r, p=p)

    monkeypatch.setattr(access, "hash_password", noted)
    made = access.new_password(b"right")
    known = user_of("ann", b"")
    costs.clear()
    known = evolve(known, password_hash=made.hash, password_salt=made.salt, scrypt_n=made.n, scrypt_r=8)
    assert not access._fits(None, b"x")
    assert access._fits(known, b"right")
    assert not access._fits(known, b"wrong")
    assert len(costs) == 3
    assert set(costs) == {(access.SCRYPT_N, access.SCRYPT_R, access.SCRYPT_P)}


@pytest.mark.parametrize("costs", [{"n": 3}, {"n": 2**40}, {"r": 2**30}, {"p": 0}])
def test_costs_that_can_not_be_paid_let_nobody_in(costs: dict[str, int]) -> None:
    changes: dict[str, Any] = {f"scrypt_{name}": value for name, value in costs.items()}
    known = evolve(user_of("ann", b"right"), **changes)
    assert not access._fits(known, b"right")


def test_a_password_is_hashed_as_the_original_does() -> None:
    made = Password(hash=b"", salt=bytes(range(16)), n=16384, r=8, p=1)
    found = access.hash_password(b"correct horse", salt=made.salt, n=made.n, r=made.r, p=made.p)
    assert len(found) == 32
