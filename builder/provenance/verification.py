"""Whether a statement is to be believed, and whether artifacts are those that it is about."""

import enum
from collections.abc import Collection, Iterable, Mapping

from attrs import frozen

from builder.model import raw
from builder.provenance.envelope import Envelope
from builder.provenance.keys import PublicKey
from builder.provenance.statement import Statement, artifacts_hash


class Verdict(enum.Enum):
    """What keys say of an envelope."""

    VALID = "valid"
    UNKNOWN_KEY = "unknown key"
    """None of the keys that were given has signed it: it is as good as not signed."""

    OUTSIDE = "outside of the key's validity"
    """A key has signed it, before it was valid, or after."""

    INVALID = "invalid"
    """It is said to be signed with one of the keys, and is not: it was changed."""


@frozen(kw_only=True)
class Verified:
    """The verdict on an envelope, and the keys that it is about: those that have signed, or are said to have."""

    verdict: Verdict
    keys: tuple[str, ...]


def verify(envelope: Envelope, statement: Statement, keys: Collection[PublicKey]) -> Verified:
    """Hold an envelope, with the statement in it, against keys."""
    have, have_not = envelope.signers(keys)
    if valid := [key.id for key in have if key.is_valid_at(statement.signed)]:
        return Verified(verdict=Verdict.VALID, keys=tuple(valid))
    if have_not:
        return Verified(verdict=Verdict.INVALID, keys=tuple(key.id for key in have_not))
    if have:
        return Verified(verdict=Verdict.OUTSIDE, keys=tuple(key.id for key in have))
    return Verified(verdict=Verdict.UNKNOWN_KEY, keys=tuple(each.key_id for each in envelope.signatures))


@frozen(kw_only=True)
class Deviation:
    """How artifacts differ from those of a statement, by their paths. ``others``: they do, and it names none."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    others: bool = False

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.extra or self.others)


def compare(statement: Statement, artifacts: Mapping[str, bytes]) -> Deviation:
    """Hold artifacts, as SHA-256 by their paths, against a statement."""
    if (named := statement.artifacts) is None:
        return Deviation(others=artifacts_hash(artifacts) != statement.directory)
    return Deviation(
        changed=_sorted(path for path in named.keys() & artifacts.keys() if named[path] != artifacts[path]),
        missing=_sorted(named.keys() - artifacts.keys()),
        extra=_sorted(artifacts.keys() - named.keys()),
    )


def _sorted(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=raw))
