"""Keys and their periods, as they are written down: PEM, each block after lines that say from when and until when it is valid.

Programs that read PEM skip what stands before a block, so the same file serves openssl and others.
"""

import re
from collections.abc import Iterable
from typing import Any, Self

from attrs import evolve, field, frozen

from builder.errors import BuilderError
from builder.model import Instant
from builder.provenance import times

MAX_FILE = 1024 * 1024
"""Bytes of a file of keys that are read."""

_BLOCK = re.compile(r"-----BEGIN (PUBLIC|PRIVATE) KEY-----\n[A-Za-z0-9+/=\s]{1,4096}-----END \1 KEY-----\n?")
_PERIOD = re.compile(r"Valid-(From|Until):[ \t]*(\S+)\s*", re.ASCII)
_MEANT = re.compile(r"[^#]*valid\W*(from|until)", re.ASCII | re.IGNORECASE)


class InvalidKey(BuilderError, ValueError):
    """A file of keys that is none, or one with keys other than Ed25519's."""

    exit_code = 2


@frozen(kw_only=True)
class PublicKey:
    """A key that signatures are held against. ``id`` is what securesystemslib, in-toto and TUF call it, in hexadecimal digits.

    Its period has ends where these are known: what was signed outside of it counts for nothing.
    """

    id: str
    pem: str
    valid_from: Instant | None = None
    valid_until: Instant | None = None

    def is_valid_at(self, moment: Instant) -> bool:
        """Return whether that moment lies within its period."""
        after, before = self.valid_from, self.valid_until
        return (after is None or after.ms <= moment.ms) and (before is None or moment.ms < before.ms)

    def __str__(self) -> str:
        return f"{_period(self)}{self.pem}"


@frozen(kw_only=True)
class SigningKey:
    """A key of a server, whose half that signs is gone when nothing may be signed with it any more."""

    public: PublicKey
    private_pem: str | None = field(repr=False)

    @classmethod
    def make(cls, now: Instant) -> Self:
        """Return a new one, valid from now on."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
        return cls(public=evolve(_public(private.public_key()), valid_from=now), private_pem=pem)

    def until(self, moment: Instant) -> Self:
        """Return it with an end of its period."""
        return evolve(self, public=evolve(self.public, valid_until=moment))

    def __str__(self) -> str:
        return f"{_period(self.public)}{self.private_pem or self.public.pem}"


def _period(key: PublicKey) -> str:
    lines = [f"Key: {key.id}\n"]
    lines += [f"Valid-From: {key.valid_from.isoformat()}\n"] if key.valid_from else []
    lines += [f"Valid-Until: {key.valid_until.isoformat()}\n"] if key.valid_until else []
    return "".join(lines)


def read(text: str) -> list[SigningKey]:
    """Return the keys of a file, of which those that can sign have their private half. Raises InvalidKey."""
    text = text.replace("\r\n", "\n")  # as mail and editors make it
    found: list[SigningKey] = []
    end = 0
    for block in _BLOCK.finditer(text):
        found.append(_read_block(text[end : block.start()], block[0], is_private=block[1] == "PRIVATE"))
        end = block.end()
    if not found or "-----" in text[end:]:
        what = "these are certificates, for TLS" if "BEGIN CERTIFICATE" in text else "that is no file of keys"
        raise InvalidKey(f"{what}: it must have PEM blocks as `builder-server keys public` prints them")
    if _periods(text[end:]):
        raise InvalidKey("the period at the end of that file is of no key: it stands before its block")
    return found


def signing_until(text: str) -> list[Instant | None]:
    """Return when the keys of a file end that sign; None: never. It looks at no key, so that nothing has to be loaded."""
    found = []
    end = 0
    for block in _BLOCK.finditer(text):
        if block[1] == "PRIVATE":
            found.append(_periods(text[end : block.start()]).get("Until"))
        end = block.end()
    return found


def read_public(text: str) -> list[PublicKey]:
    """Return the public keys of a file. Raises InvalidKey, also for a private one: whoever verifies needs none."""
    found = read(text)
    if any(key.private_pem for key in found):
        raise InvalidKey("there is a private key in that file: keep it from others, and take what `keys public` prints")
    return [key.public for key in found]


def public_text(keys: Iterable[PublicKey]) -> str:
    """Return a file with these keys."""
    return "\n".join(map(str, keys))


def _read_block(before: str, pem: str, *, is_private: bool) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        loaded = load_pem_private_key(pem.encode(), None) if is_private else load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey("a key in that file is damaged, or of a kind that nobody knows") from error
    if not isinstance(loaded, Ed25519PrivateKey | Ed25519PublicKey):
        raise InvalidKey("a key in that file is not one of Ed25519, which builder-server signs with")
    public = loaded.public_key() if isinstance(loaded, Ed25519PrivateKey) else loaded
    period = _periods(before)
    return SigningKey(
        public=evolve(_public(public), valid_from=period.get("From"), valid_until=period.get("Until")),
        private_pem=pem if is_private else None,
    )


def _periods(lines: str) -> dict[str, Instant]:
    """Return the period that lines tell. What seems to be one must be: a key must not be valid for ever by a slip of the pen."""
    found: dict[str, Instant] = {}
    for line in filter(_MEANT.match, lines.splitlines()):
        period = _PERIOD.fullmatch(line)
        if period is None or period[1] in found:
            raise InvalidKey(
                f"the period of a key is none: {line[:50]!r}; write Valid-Until: 2026-11-26T21:00:00Z, once"
            )
        found[period[1]] = _moment(period[2])
    return found


def _moment(value: str) -> Instant:
    moment = times.read(value)
    if moment is None:
        raise InvalidKey(f"the period of a key ends or begins at no time: {value[:50]!r}; write 2026-11-26T21:00:00Z")
    return moment


def _public(key: Any) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    return PublicKey(id=SSlibKey.from_crypto(key).keyid, pem=pem)
