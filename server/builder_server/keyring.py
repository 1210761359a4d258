"""The keys of a server, DIR/builder.keys/ID.pem: made when they are first needed, and rotated without a moment in which none is valid.

Only the server's user can read them, from the first byte on. A file is written under another name, made durable and renamed;
a rotation adds the new key before it ends the old ones: after a crash between the two all of them sign.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from builder.model import Instant, printable
from builder.provenance import KeysUnusable, keys
from builder.provenance.envelope import MAX_SIGNATURES
from builder.provenance.keys import InvalidKey, PublicKey, SigningKey
from builder.reasons import reason_of
from builder.runtime.files import lock_directory, sync_directory
from builder_server.names import KEY_SUFFIX, KEYS

T = TypeVar("T")

OVERLAP = dt.timedelta(days=30)
"""How long the keys before stay valid: by then whoever verifies has the new one."""

_MODE, _DIRECTORY_MODE = 0o600, 0o700


@frozen
class Keyring:
    """The keys below a server's directory. All methods raise KeysUnusable."""

    data_dir: Path

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self.data_dir / KEYS

    def all(self) -> list[SigningKey]:
        """Return all keys, the oldest first; there may be none."""
        with _failing(self.directory):
            return self._read()

    def signing(self, now: Instant) -> list[SigningKey]:
        """Return the keys that sign what ends now, and make one if there never was any."""
        with _failing(self.directory):
            found = self._read() or self._make_first(now)
        valid = [key for key in found if key.private_pem and key.public.is_valid_at(now)]
        if not valid:
            raise KeysUnusable(f"no key in {self.directory} is valid: make one with `builder-server keys rotate`")
        return valid

    def public(self, now: Instant) -> list[PublicKey]:
        """Return what others verify with, the oldest first."""
        with _failing(self.directory):
            found = self._read() or self._make_first(now)
        return [key.public for key in found]

    def last_end(self) -> tuple[str, Instant] | None:
        """Return the key that signs for longest, and until when; None if one does for ever, or there is none."""
        ends: list[tuple[str, Instant]] = []
        with _failing(self.directory):
            for path, until in self._parsed(keys.signing_until):
                if None in until:
                    return None
                ends += [(path.stem, each) for each in until if each is not None]
        return max(ends, key=lambda each: each[1], default=None)

    def rotate(self, now: Instant, overlap: dt.timedelta = OVERLAP, period: dt.timedelta | None = None) -> SigningKey:
        """Add a key, valid from now on, and for that period if there is one; end the others after an overlap.

        Of those that have ended the private half goes: with it builds of before could be invented.
        """
        with _failing(self.directory), self._locked():
            new = SigningKey.make(now)
            if period is not None:
                new = new.until(now.plus(period))
            before = self._read()
            after = [_ending(key, now, now.plus(overlap)) for key in before]
            if sum(key.private_pem is not None for key in after) >= MAX_SIGNATURES:
                raise KeysUnusable(
                    f"{MAX_SIGNATURES} keys sign already, and more signatures than that nobody takes: rotate when one has "
                    "ended (`builder-server keys list`), or end them all now with --overlap 0"
                )
            self._write(new)
            for key, ending in zip(before, after, strict=True):
                if ending != key:
                    self._write(ending)
        return new

    def _make_first(self, now: Instant) -> list[SigningKey]:
        with self._locked():
            if found := self._read():
                return found  # another program was quicker
            first = SigningKey.make(now)
            self._write(first)
            return [first]

    def _read(self) -> list[SigningKey]:
        return sorted((key for _, found in self._parsed(keys.read) for key in found), key=_age)

    def _parsed(self, parse: Callable[[str], list[T]]) -> Iterator[tuple[Path, list[T]]]:
        for path in files(self.data_dir):
            with path.open("rb") as file:
                text = file.read(keys.MAX_FILE).decode("ascii", "replace")
            try:
                found = parse(text)
            except InvalidKey as error:
                raise KeysUnusable(f"{path}: {error}") from error
            yield path, found

    def _write(self, key: SigningKey) -> None:
        path = self.directory / f"{key.public.id}{KEY_SUFFIX}"
        part = path.with_suffix(".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, _MODE), "wb") as file:
            file.write(str(key).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_directory(self.directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other programs from writing keys meanwhile: a moment."""
        if not self.directory.exists():
            self.directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
            sync_directory(self.data_dir)
        descriptor = lock_directory(self.directory, wait=True)
        assert descriptor is not None, "it was waited for"
        try:
            for left in self.directory.glob("*.part"):  # by a crash: half of a secret
                left.unlink()
            yield
        finally:
            os.close(descriptor)


def files(data_dir: Path) -> list[Path]:
    """Return the files of all keys; none where there is no directory of them. Raises OSError."""
    directory = data_dir / KEYS
    try:
        return [directory / name for name in sorted(os.listdir(directory)) if name.endswith(KEY_SUFFIX)]  # noqa: PTH208  glob hides errors
    except FileNotFoundError:
        return []


def _ending(key: SigningKey, now: Instant, end: Instant) -> SigningKey:
    ending = key.until(min(end, key.public.valid_until or end))
    return ending if ending.public.is_valid_at(now) else evolve(ending, private_pem=None)


def _age(key: SigningKey) -> tuple[int, str]:
    return (key.public.valid_from or Instant(0)).ms, key.public.id


@contextmanager
def _failing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeysUnusable(f"the keys in {printable(str(directory))} can't be used: {reason_of(error)}") from error
