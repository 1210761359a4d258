"""Who is it: names and passwords of Basic authentication, checked against the users in the database.

A check costs 30 ms of a processor, which uploads of small builds would feel: a password that was right is remembered for
a while, as a keyed hash that only this process can make. Wrong ones are counted by address: after some, answers to that
address come later and later, one at a time, and more than a few are not waited for.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

import trio
from attrs import define, field, frozen

from builder.errors import BuilderError
from builder_web.store.records import Password, User

REMEMBER = 300.0
"""Seconds after its last use for which a password that was right is not computed again; a changed or removed one is noticed at
once."""

MAX_REMEMBERED = 1000
"""Passwords; of more, those that were not given for the longest time are computed again."""

MAX_ADDRESSES = 10_000
"""Addresses whose failures are counted; of more, those that failed the longest time ago are forgotten."""

FREE_FAILURES = 5
"""Wrong passwords that are answered at once."""

MAX_DELAY = 10.0
"""Seconds that an answer is held back at most: twice as long for each failure."""

FORGET = 600.0
"""Seconds after the last failure when nothing is held against an address any more."""

MAX_WAITING = 8
"""Checks of one address that wait for others of it."""

_CHECKS_AT_ONCE = 2  # processors are needed for other things, too

SCRYPT_N = 16384
SCRYPT_R = 8
SCRYPT_P = 1
SALT_SIZE = 16
KEY_SIZE = 32


class TooManyFailures(BuilderError):
    """So many wrong passwords came from an address that no more of them are even looked at."""


@frozen(kw_only=True)
class Credentials:
    """What a peer says it is."""

    username: str
    password: bytes


@define
class _Failures:
    count: int = 0
    last: float = 0.0
    lock: trio.Lock = field(factory=trio.Lock)

    def check_crowd(self, address: str) -> None:
        """Raise TooManyFailures if many wait behind wrong passwords."""
        if self.count >= FREE_FAILURES and self.lock.statistics().tasks_waiting >= MAX_WAITING:
            raise TooManyFailures(f"too many wrong passwords came from {address}; try again in some minutes")


def parse(header: str | None) -> Credentials | None:
    """Return the credentials of an Authorization header, or None if it has none of the Basic scheme."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    name, colon, password = decoded.partition(b":")
    try:
        return Credentials(username=name.decode(), password=password) if colon else None
    except UnicodeDecodeError:
        return None


def hash_password(password: bytes, *, salt: bytes, n: int, r: int, p: int) -> bytes:
    """Return the scrypt hash of a password, as the original makes it. Raises ValueError for costs that can't be paid."""
    return hashlib.scrypt(
        password, salt=salt, n=n, r=r, p=p, dklen=KEY_SIZE, maxmem=128 * r * (n + p + 2) + 1024 * 1024
    )


def new_password(password: bytes, *, n: int = SCRYPT_N, r: int = SCRYPT_R, p: int = SCRYPT_P) -> Password:
    """Return the hash of a new password, with a salt of its own. Raises ValueError for costs that can't be paid."""
    salt = secrets.token_bytes(SALT_SIZE)
    return Password(hash=hash_password(password, salt=salt, n=n, r=r, p=p), salt=salt, n=n, r=r, p=p)


class Access:
    """Checks credentials. ``find`` looks a user up by name, ``clock`` gives seconds that never go back."""

    def __init__(self, find: Callable[[str], Awaitable[User | None]], clock: Callable[[], float]) -> None:
        self._find = find
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._checks = trio.CapacityLimiter(_CHECKS_AT_ONCE)

    async def check(self, given: Credentials | None, address: str) -> User | None:
        """Return the user, or None if the credentials are not right. Raises TooManyFailures and StoreError."""
        if given is None:
            return None
        user = await self._find(given.username)
        mark = self._mark(user, given)
        if self._recall(mark):
            return user
        failures = self._failures_of(_network(address))
        failures.check_crowd(address)
        async with failures.lock:
            failures.check_crowd(address)  # those who came with it may have failed meanwhile
            if self._recall(mark):  # by whom was waited for
                return user
            if failures.count >= FREE_FAILURES:
                await trio.sleep(min(MAX_DELAY, 0.5 * 2 ** min(failures.count - FREE_FAILURES, 10)))
            is_right = await trio.to_thread.run_sync(_fits, user, given.password, limiter=self._checks)
            if is_right:
                failures.count = 0
                self._remember(mark)
                return user
            failures.count += 1
            failures.last = self._clock()
        return None

    def _mark(self, user: User | None, given: Credentials) -> bytes:
        """Return what is remembered of a right password: it changes with whatever the database says of it."""
        if user is None:
            return b""
        message = b"\0".join((str(user.id).encode(), user.password_hash, user.password_salt, given.password))
        return hmac.digest(self._key, message, "sha256")

    def _recall(self, mark: bytes) -> bool:
        """Return whether it is remembered, and remember it for as long again: who uploads now and then is held up by nobody."""
        if self._remembered.get(mark, 0.0) <= self._clock():
            return False
        self._remember(mark)
        return True

    def _remember(self, mark: bytes) -> None:
        self._remembered[mark] = self._clock() + REMEMBER
        self._remembered.move_to_end(mark)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _failures_of(self, network: str) -> _Failures:
        found = self._failures.setdefault(network, _Failures())
        self._failures.move_to_end(network)
        if self._clock() - found.last >= FORGET:
            found.count = 0
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return found


def _network(address: str) -> str:
    """Return whom failures of an address are held against: who has one IPv6 address has its 64 bits of others."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address


def _fits(user: User | None, password: bytes) -> bool:
    """Return whether it is the user's password; it takes as long for a user that there is not."""
    try:
        if user is None:
            hash_password(password, salt=bytes(SALT_SIZE), n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
            return False
        found = hash_password(password, salt=user.password_salt, n=user.scrypt_n, r=user.scrypt_r, p=user.scrypt_p)
    except (ValueError, MemoryError, OverflowError):
        return False
    return hmac.compare_digest(found, user.password_hash)
