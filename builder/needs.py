"""What a job needs of a worker, and whether one has it. Text and facts in, values out.

    kvm                  what a worker has, or a label that its operator has given it
    memory>=16G          at least so much
    sandbox=overlay      exactly that

A job is given only to workers that have all that it needs.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property, lru_cache
from typing import ClassVar

from attrs import define, field, frozen

from builder.directives import words
from builder.errors import InvalidOptions
from builder.model import printable
from builder.quantities import InvalidQuantity, parse_count, parse_size

MAX_NEEDS = 32
"""Most needs of one job, with those of its script."""

MAX_LABEL = 50
"""Characters of a label."""

MAX_MEMORY = 512 * 1024**4
"""Bytes, 512 TiB: more than any machine has, and few enough digits to be written and read again."""

LABEL = "label."
"""What the names of facts begin with that are labels."""

PRESSURE = "pressure"
"""The fact that says why a worker takes no job now."""

QUANTITIES: Mapping[str, tuple[Callable[[str], int], int, str]] = {
    "cores": (parse_count, 65536, "cores>=N, such as cores>=4"),
    "memory": (parse_size, MAX_MEMORY, "memory>=SIZE, such as memory>=16G"),
}
"""The facts that are numbers: how one is read, the largest that may be asked for, and what to write."""

TEXTS: Mapping[str, str] = {
    "arch": "arch=NAME, such as arch=x86_64",
    "root": "root=SHA256, as `builder-worker check --root DIR` shows it",
    "sandbox": "sandbox=NAME, such as sandbox=overlay",
    "snapshot": "snapshot=DATE, as `builder-worker check --root DIR` shows it",
}
"""The facts that are compared as they are, and what to write."""

TRUTHS = ("kvm",)
"""The facts that are ``yes`` or ``no``."""

_TOLD = frozenset({*QUANTITIES, *TEXTS, *TRUTHS, "load", "slots", "version", PRESSURE})
"""Names of facts, which are no labels."""

_USAGE = "write NAME, memory>=SIZE, cores>=N or NAME=VALUE, such as kvm, memory>=16G or sandbox=overlay"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}", re.ASCII)
_UNITS = {"T": 1024**4, "G": 1024**3, "M": 1024**2, "K": 1024}


def _refuse(said: str, reason: str) -> InvalidOptions:
    return InvalidOptions(f"{printable(said[:80])}: {reason}")


@frozen(kw_only=True)
class Need:
    """One thing that a worker must have: ``least`` of a number, or a fact of that ``value``, or else simply what is named."""

    numbered: ClassVar[bool] = True
    name: str
    least: int | None = None
    value: str | None = None

    def __attrs_post_init__(self) -> None:
        """Raise InvalidOptions, which says what to write."""
        if not _NAME.fullmatch(self.name):
            raise _refuse(self.name, _USAGE)
        if len(self.name) > MAX_LABEL:
            raise _refuse(self.name, f"a label has at most {MAX_LABEL} characters")
        if self.name in QUANTITIES:
            _, most, usage = QUANTITIES[self.name]
            if self.least is None or self.value is not None or not 1 <= self.least <= most:
                raise _refuse(self.name, f"write {usage}")
        elif self.name in TEXTS:
            if self.value is None or self.least is not None or not _VALUE.fullmatch(self.value):
                raise _refuse(self.name, f"write {TEXTS[self.name]}")
        elif self.value is not None or self.least is not None:
            raise _refuse(str(self), f"{self.name} has no value to ask for: write {self.name} alone")

    @classmethod
    def parse(cls, said: str) -> "Need":
        """Read what ``str`` returns, and other ways to write the same. Raises InvalidOptions, which says what to write."""
        name, relation, value = _parted(said)
        if not _NAME.fullmatch(name):
            raise _refuse(said, _USAGE)
        if relation == ">=":
            if name not in QUANTITIES:
                raise _refuse(said, f"only of {' and '.join(QUANTITIES)} one can ask for so much; {_USAGE}")
            read, most, usage = QUANTITIES[name]
            try:
                least = read(value)
            except InvalidQuantity as error:
                raise _refuse(said, f"write {usage}") from error
            if least > most:
                raise _refuse(said, f"no machine has so much: write {usage}")
            return cls(name=name, least=least)
        if relation and name in QUANTITIES:
            raise _refuse(said, f"write {QUANTITIES[name][2]}")
        if relation and name in TEXTS and not _VALUE.fullmatch(value):
            raise _refuse(said, f"write {TEXTS[name]}")
        return cls(name=name, value=value if relation else None)

    def __str__(self) -> str:
        """Return it as it is written, each need in one way."""
        if self.least is not None:
            return f"{self.name}>={_quantity(self.name, self.least)}"
        return self.name if self.value is None else f"{self.name}={self.value}"


def _parted(said: str) -> tuple[str, str, str]:
    for relation in (">=", "="):
        name, found, value = said.partition(relation)
        if found:
            return name, relation, value
    return said, "", ""


def _quantity(name: str, amount: int) -> str:
    if name == "memory":
        for unit, size in _UNITS.items():
            if amount % size == 0:
                return f"{amount // size}{unit}"
    return str(amount)


def together(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return the same needs in the one order that they have, each once, and of several amounts the largest.

    Raises InvalidOptions for too many, or for two that no worker meets together.
    """
    by_name: dict[str, Need] = {}
    for need in needs:
        before = by_name.setdefault(need.name, need)
        if need.least is not None and before.least is not None:
            by_name[need.name] = max(before, need, key=lambda each: each.least or 0)
        elif before != need:
            raise InvalidOptions(f"no worker has both {before} and {need}: write one of them")
    if len(by_name) > MAX_NEEDS:
        raise InvalidOptions(f"a job has at most {MAX_NEEDS} needs")
    return tuple(by_name[name] for name in sorted(by_name))


def text_of(needs: Iterable[Need]) -> str:
    """Return needs that are ``together`` as one text, empty for none: equal needs are equal texts."""
    return " ".join(map(str, needs))


@lru_cache(maxsize=4096)
def of_text(said: str) -> tuple[Need, ...]:
    """Return the needs of which ``text_of`` made a text."""
    return tuple(map(Need.parse, said.split()))


@frozen(kw_only=True)
class InScript:
    """What a script says that it needs; ``mistakes`` are what is not understood, a line each."""

    needs: tuple[Need, ...] = ()
    mistakes: tuple[str, ...] = ()


def of_script(script: bytes) -> InScript:
    """Return what a script says that it needs, in words such as ``needs=kvm,memory>=16G``."""
    needs: tuple[Need, ...] = ()
    mistakes = []
    for number, word in words(script):
        name, _, value = word.partition("=")
        for said in value.split(",") if name == "needs" else ():
            try:
                needs = together([*needs, Need.parse(said)])
            except InvalidOptions as error:
                mistakes.append(f"line {number} of the script: {error}")
    return InScript(needs=needs, mistakes=tuple(mistakes[:MAX_NEEDS]))


def check_label(name: str) -> str:
    """Return the name of a label. Raises InvalidOptions for one that no job can need, or that means something already."""
    if name in _TOLD:
        raise _refuse(name, "the worker finds out itself whether it has that: choose another name for the label")
    if not _NAME.fullmatch(name) or len(name) > MAX_LABEL:
        raise _refuse(name, f"write up to {MAX_LABEL} letters, digits, dots, dashes and underscores, such as big-disk")
    return name


@define(frozen=True, slots=False)
class Capabilities:
    """What a worker has, as far as a job can need it: pairs of names and values of facts. Of a classic worker: nothing."""

    facts: frozenset[tuple[str, str]] = field(default=frozenset())

    @classmethod
    def of(cls, facts: Iterable[tuple[str, str]]) -> "Capabilities":
        """Return what can be needed of all that a worker tells."""
        return cls(frozenset((name, value) for name, value in facts if name in _NEEDED or name.startswith(LABEL)))

    @cached_property
    def _by_name(self) -> dict[str, str]:
        return dict(self.facts)

    def meets(self, need: Need) -> bool:
        """Return whether the worker has what is needed."""
        if need.least is not None:
            return (self.amount(need.name) or 0) >= need.least
        if need.value is not None:
            return self.value(need.name) == need.value
        return self.value(need.name) == "yes" or LABEL + need.name in self._by_name

    def amount(self, name: str) -> int | None:
        """Return how much of something the worker has; None if it tells no number."""
        told = self._by_name.get(name, "")
        return int(told[:20]) if told.isascii() and told.isdigit() else None

    def value(self, name: str) -> str:
        """Return what the worker tells, "" for nothing."""
        return self._by_name.get(name, "")

    def names(self) -> set[str]:
        """Return what the worker simply has."""
        labels = {name.removeprefix(LABEL) for name in self._by_name if name.startswith(LABEL)}
        return labels | {name for name in TRUTHS if self.value(name) == "yes"}

    def lacks(self, needs: Iterable[Need]) -> tuple[Need, ...]:
        """Return those needs that the worker does not meet."""
        return tuple(need for need in needs if not self.meets(need))


def instead(need: Need, having: Collection[Capabilities]) -> Need | None:
    """Return what comes nearest to a need that nobody meets: the most that there is, another value, or a name like it."""
    try:
        if need.least is not None:
            most = max((each.amount(need.name) or 0 for each in having), default=0)
            least = most - most % _UNITS["M"] if need.name == "memory" else most  # as a person would write it
            return Need(name=need.name, least=least) if least else None
        if need.value is not None:
            values = {value for each in having if (value := each.value(need.name))}
            return next((Need(name=need.name, value=value) for value in _like(need.value, values, 0.0)), None)
        names = {name for each in having for name in each.names()}
        return next((Need(name=name) for name in _like(need.name, names, 0.6)), None)
    except InvalidOptions:  # a worker may tell anything
        return None


def _like(said: str, known: Collection[str], likeness: float) -> list[str]:
    from difflib import get_close_matches  # for those who have mistyped something

    return get_close_matches(said, sorted(known), 1, likeness)


_NEEDED = frozenset({*QUANTITIES, *TEXTS, *TRUTHS})

NOTHING = Capabilities()
"""What is known of a classic worker."""
