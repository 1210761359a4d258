"""How values are written in DER, derived from their classes; the only user of asn1tools.

A class with attrs is a SEQUENCE of its fields, in their order and under their names; one with a single field is written
as that field alone, one without any as NULL. A class that is ``numbered`` is always a SEQUENCE, whose elements have the
tags 0, 1, 2 …, so that any of them may be OPTIONAL and more may come later: what is ours is written so. An enumeration,
and a union of classes, is a CHOICE of alternatives with the tags 0, 1, 2 … in their order. Where the wire has something
else, a table below says what.

So a type is written down once, as a class. ``builder.asn1`` is the same for readers, and a test compares both. It is not
compiled here: to parse it takes 55 ms, which every start of a program would wait for, where these nodes take less than
one. asn1tools decodes BER and DER is enforced here, since its DER codec turns ``[UNIVERSAL 12] IMPLICIT`` into a
context tag (seen in 0.169). DER gives every value one encoding, so a value that is decoded and encoded again must be
the same bytes: that one comparison refuses lengths and integers that are not minimal, constructed strings, elements too
many and bytes left over. ``der.check`` runs first and bounds depth and number of elements.
"""

import copy
import enum
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import attrs
from attrs import frozen

from builder import asn1, der, encoder
from builder.encoder import Node
from builder.errors import ProtocolError
from builder.model import NO_PLATFORM, Artifact, Instant, ScriptJob, raw, text
from builder.times import decode_time, encode_time

Asn1 = Any
"""What asn1tools gives and takes: dicts, lists, bytes, ints, (alternative, value) pairs."""


@frozen(kw_only=True, eq=False)
class Syntax:
    """How values of one type are written: its ASN.1, and the way from a value to what asn1tools takes and back."""

    node: Node
    to_asn1: Callable[[Any], Asn1]
    from_asn1: Callable[[Asn1], Any]

    def tagged(self, number: int) -> Node:
        """Return the node of this type behind an EXPLICIT context tag."""
        return {**self.node, "tag": {"number": number}}


_TEXT: Node = {"type": "Text"}


def _time(number: int) -> Node:
    return {"type": "OCTET STRING", "tag": {"class": "UNIVERSAL", "kind": "IMPLICIT", "number": number}}


UTC_TIME = _time(23)
"""Read in old files and never written."""

_TYPES: dict[str, Node] = {
    # Any bytes: on the wire it is called a UTF8String, but nobody ever checked that it is UTF-8.
    "Text": {"type": "OCTET STRING", "tag": {"class": "UNIVERSAL", "kind": "IMPLICIT", "number": der.TEXT}},
    # The form of a GeneralizedTime here is not DER's own, so the bytes are carried as they are: see builder.times.
    "Time": {
        "type": "CHOICE",
        "members": [{**UTC_TIME, "name": "utcTime"}, {**_time(24), "name": "generalizedTime"}],
    },
}


@functools.cache
def _decoder(name: str, syntax: Syntax, tag: int | None) -> Any:
    asn1tools = asn1.load()  # 70 ms, which `--help` and whoever speaks to nobody should not wait for
    node = copy.deepcopy(syntax.node if tag is None else syntax.tagged(tag))  # the compiler writes into it
    module = {"types": {**copy.deepcopy(_TYPES), name: node}, "tags": "EXPLICIT", "extensibility-implied": False}
    module |= {"imports": {}, "values": {}, "object-classes": {}, "object-sets": {}}
    return asn1tools.compile_dict({"Builder": module}, "ber")


@functools.cache
def _writer(syntax: Syntax, tag: int | None) -> encoder.Writer:
    return encoder.writer_of(syntax.node if tag is None else syntax.tagged(tag), _TYPES)


def encode(syntax: Syntax, value: object, *, tag: int | None = None) -> bytes:
    """Return the DER of a value, behind an EXPLICIT context tag if one is given.

    Raises ProtocolError for an integer that the original could not read.
    """
    return encoder.encode(_writer(syntax, tag), syntax.to_asn1(value))


def decode(name: str, syntax: Syntax, data: bytes, *, max_elements: int, tag: int | None = None) -> Any:
    """Return the value of exactly these bytes. Raises ProtocolError for any others; ``name`` is what it calls them."""
    der.check(data, max_elements=max_elements)
    try:
        value = _decoder(name, syntax, tag).decode(name, data)
    except asn1.load().Error as error:
        # its message names the path of types and the offset: of use in a log, on one line
        raise ProtocolError(f"malformed {name}: {' '.join(str(error).split())[:200]}") from error
    canonical = encoder.encode(_writer(syntax, tag), value)
    if canonical != data:
        raise ProtocolError(f"malformed {name}: not in the one encoding that DER allows")
    return syntax.from_asn1(value)


# --- what classes mean ---------------------------------------------------------------------------------------------


_syntaxes: dict[Any, Syntax] = {}


def syntax_of(hint: Any) -> Syntax:
    """Return how values of a type are written; ``hint`` is a class, a union of classes, or a tuple of any length."""
    if hint not in _syntaxes:
        _syntaxes[hint] = _GIVEN.get(hint) or _derived(hint)
    return _syntaxes[hint]


def _derived(hint: Any) -> Syntax:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return sequence_of(syntax_of(typing.get_args(hint)[0]))
    if origin in (types.UnionType, typing.Union):
        return choice({_camel(kind.__name__): (tag, syntax_of(kind)) for tag, kind in enumerate(typing.get_args(hint))})
    if issubclass(hint, enum.Enum):
        members = [{"name": each.value, "type": "NULL", "tag": {"number": tag}} for tag, each in enumerate(hint)]
        return Syntax(
            node={"type": "CHOICE", "members": members},
            to_asn1=lambda value: (value.value, None),
            from_asn1=lambda value: hint(value[0]),
        )
    return fields_of(hint, tuple(field.name for field in attrs.fields(hint)))


def sequence_of(element: Syntax) -> Syntax:
    """Return a SEQUENCE OF, for a tuple."""
    return Syntax(
        node={"type": "SEQUENCE OF", "element": element.node},
        to_asn1=lambda values: [element.to_asn1(value) for value in values],
        from_asn1=lambda values: tuple(element.from_asn1(value) for value in values),
    )


def choice(alternatives: Mapping[str, tuple[int, Syntax]]) -> Syntax:
    """Return a CHOICE: of each alternative its name, which is that of its class, its EXPLICIT context tag and its syntax."""

    def to_asn1(value: object) -> Asn1:
        name = _camel(type(value).__name__)
        return name, alternatives[name][1].to_asn1(value)

    return Syntax(
        node={
            "type": "CHOICE",
            "members": [{**syntax.tagged(tag), "name": name} for name, (tag, syntax) in alternatives.items()],
        },
        to_asn1=to_asn1,
        from_asn1=lambda value: alternatives[value[0]][1].from_asn1(value[1]),
    )


def fields_of(kind: Any, names: tuple[str, ...]) -> Syntax:
    """Return how a class is written with only these of its fields; the others get their defaults when it is read."""
    hints = typing.get_type_hints(kind)
    is_numbered = getattr(kind, "numbered", False)
    if not names:
        return Syntax(node={"type": "NULL"}, to_asn1=lambda _: None, from_asn1=lambda _: kind())
    if len(names) == 1 and not is_numbered:
        (name,) = names
        only = syntax_of(hints[name])
        return Syntax(
            node=only.node,
            to_asn1=lambda value: only.to_asn1(getattr(value, name)),
            from_asn1=lambda value: kind(**{name: only.from_asn1(value)}),
        )
    members: list[dict[str, Any]] = []
    parts: list[tuple[str, str, Syntax]] = []
    for number, name in enumerate(names):
        part, is_optional = _without_none(hints[name])
        syntax = syntax_of(part)
        node = syntax.tagged(number) if is_numbered else syntax.node
        members.append({**node, "name": _camel(name), **({"optional": True} if is_optional else {})})
        parts.append((name, _camel(name), syntax))

    def to_asn1(value: Any) -> Asn1:
        given = ((key, syntax, getattr(value, name)) for name, key, syntax in parts)
        return {key: syntax.to_asn1(content) for key, syntax, content in given if content is not None}

    def from_asn1(value: Asn1) -> Any:
        return kind(**{name: syntax.from_asn1(value[key]) for name, key, syntax in parts if key in value})

    return Syntax(node={"type": "SEQUENCE", "members": members}, to_asn1=to_asn1, from_asn1=from_asn1)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it had it: then it is OPTIONAL."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else ()
    if type(None) not in parts:
        return hint, False
    rest = tuple(part for part in parts if part is not type(None))
    return functools.reduce(lambda one, other: one | other, rest), True


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first[:1].lower() + first[1:] + "".join(part.capitalize() for part in rest)


# --- values --------------------------------------------------------------------------------------------------------

_MAX_INTEGER = 2**62 - 1
_MIN_INTEGER = -(2**62)

_REPEATED_SLASHES = re.compile(rb"(?s)(?<=.)/+")  # two slashes at the begin are left: POSIX lets them mean something


def integer(value: int) -> int:
    """Return an integer that the original can read as well. Raises ProtocolError for others."""
    if not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise ProtocolError("integer beyond 62 bits")
    return value


def decode_uuid(content: bytes) -> UUID:
    """Return the uuid of its bytes; what follows them is ignored, as in the original. Raises ProtocolError."""
    if len(content) < 16:
        raise ProtocolError("a uuid must have 16 bytes")
    return UUID(bytes=bytes(content[:16]))


def decode_path(content: bytes) -> str:
    """Return the path of a file; ProtocolError for what the original refuses. Far more may not be stored: see the model."""
    if not content or b"\0" in content:
        raise ProtocolError("a path is empty or contains a NUL")
    return text(_REPEATED_SLASHES.sub(b"/", content))  # as the original reads it, so that a/b and a//b are one path


# --- what the wire has otherwise -----------------------------------------------------------------------------------

_FILE: Node = {"type": "SEQUENCE", "members": [{**_TEXT, "name": "path"}, {**_TEXT, "name": "content"}]}


def _from_script_job(value: Asn1) -> ScriptJob:
    for file in value["files"]:
        decode_path(file["path"])
    platform = text(value["platform"]) if "platform" in value else NO_PLATFORM
    return ScriptJob(name=text(value["name"]), platform=platform, script=bytes(value["script"]))


_GIVEN: dict[Any, Syntax] = {
    bool: Syntax(node={"type": "BOOLEAN"}, to_asn1=bool, from_asn1=bool),
    int: Syntax(node={"type": "INTEGER"}, to_asn1=integer, from_asn1=integer),
    str: Syntax(node=_TEXT, to_asn1=raw, from_asn1=text),
    bytes: Syntax(node=_TEXT, to_asn1=bytes, from_asn1=bytes),
    UUID: Syntax(node=_TEXT, to_asn1=lambda uuid: uuid.bytes, from_asn1=decode_uuid),
    Instant: Syntax(
        node={"type": "Time"},
        to_asn1=lambda moment: ("generalizedTime", encode_time(moment)),
        from_asn1=lambda value: decode_time(*value),
    ),
    Artifact: Syntax(
        node=_FILE,
        to_asn1=lambda artifact: {"path": raw(artifact.path), "content": artifact.content},
        from_asn1=lambda value: Artifact(path=decode_path(value["path"]), content=bytes(value["content"])),
    ),
    # files are always sent empty, and ignored
    ScriptJob: Syntax(
        node={
            "type": "SEQUENCE",
            "members": [
                {**_TEXT, "name": "name"},
                {**_TEXT, "name": "script"},
                {"type": "SEQUENCE OF", "element": _FILE, "name": "files"},
                {**_TEXT, "name": "platform", "optional": True},
            ],
        },
        to_asn1=lambda job: {
            "name": raw(job.name),
            "script": job.script,
            "files": [],
            "platform": raw(job.platform),
        },
        from_asn1=_from_script_job,
    ),
}
