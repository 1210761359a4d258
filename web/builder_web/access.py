"""Who is it: names and passwords of Basic authentication, checked against the users in the database.

A check costs 30 ms of a processor, which uploads of small builds would feel: a password that was right is remembered for
a while, as a keyed hash that only this process can make. Wrong ones are remembered too, by address: after some, answers to
that address come later and later, one at a time.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable

import trio
from attrs import define, field, frozen

from builder_web.store.records import Password, User

REMEMBER = 300.0
"""Seconds for which a password that was right is not computed again; a changed or removed one is noticed at once."""

_MAX_REMEMBERED = 1000
_FREE_FAILURES = 5
_MAX_DELAY = 10.0
_FORGET = 600.0
_MAX_ADDRESSES = 10_000
_CHECKS_AT_ONCE = 2

SCRYPT_N = 16384
SCRYPT_R = 8
SCRYPT_P = 1
SALT_SIZE = 16
KEY_SIZE = 32


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
        self._remembered: dict[bytes, float] = {}
        self._failures: dict[str, _Failures] = {}
        self._checks = trio.CapacityLimiter(_CHECKS_AT_ONCE)

    async def check(self, given: Credentials | None, address: str) -> User | None:
        """Return the user, or None if the credentials are not right. Raises StoreError."""
        if given is None:
            return None
        user = await self._find(given.username)
        mark = self._mark(user, given) if user else b""
        if user and self._remembered.get(mark, 0.0) > self._clock():
            return user
        failures = self._failures_of(address)
        async with failures.lock:
            if failures.count >= _FREE_FAILURES:
                await trio.sleep(min(_MAX_DELAY, 0.5 * 2 ** (failures.count - _FREE_FAILURES)))
            if await trio.to_thread.run_sync(_fits, user, given.password, limiter=self._checks):
                failures.count = 0
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[mark] = self._clock() + REMEMBER
                return user
            failures.count += 1
            failures.last = self._clock()
        return None

    def _mark(self, user: User, given: Credentials) -> bytes:
        message = b"\0".join((user.password_hash, user.password_salt, given.password))
        return hmac.digest(self._key, message, "sha256")

    def _failures_of(self, address: str) -> _Failures:
        now = self._clock()
        if len(self._failures) >= _MAX_ADDRESSES:
            recent = {key: one for key, one in self._failures.items() if now - one.last < _FORGET}
            self._failures = recent if len(recent) < _MAX_ADDRESSES else {}
        found = self._failures.setdefault(address, _Failures())
        if now - found.last >= _FORGET:
            found.count = 0
        return found


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
