"""docs/builder.asn1, the specification for readers, says what the classes say: compared as what asn1tools parses."""

from pathlib import Path
from typing import Any

import asn1tools
import pytest

from builder import codec
from builder.extension import order
from builder.messages import KINDS
from builder.model import Result, ScriptJob
from builder.syntax import fields_of, syntax_of

PAGE = Path(__file__).parent.parent / "docs" / "builder.asn1"
TYPES: dict[str, Any] = asn1tools.parse_string(PAGE.read_text("ascii"))["Builder"]["types"]

assert order.ALL, "its import makes all messages known"

KEPT = {"Text", "Time"}
"""The types that a node refers to by name."""


def expanded(node: dict[str, Any]) -> dict[str, Any]:
    """Return a parsed type with what it refers to in its place."""
    node = dict(node)
    if node["type"] in TYPES and node["type"] not in KEPT:
        node = {**expanded(TYPES[node["type"]]), **{key: value for key, value in node.items() if key != "type"}}
    if "members" in node:
        node["members"] = [expanded(member) for member in node["members"]]
    if "element" in node:
        node["element"] = expanded(node["element"])
    return node


def derived(number: int) -> dict[str, Any]:
    kind = KINDS[number]
    syntax = fields_of(kind, kind.older[number]) if number in kind.older else syntax_of(kind)
    return dict(syntax.tagged(number))


def test_every_message_is_specified() -> None:
    assert {member["tag"]["number"] for member in TYPES["Command"]["members"]} == set(KINDS)


@pytest.mark.parametrize("number", sorted(KINDS))
def test_a_message_is_as_specified(number: int) -> None:
    (member,) = (each for each in TYPES["Command"]["members"] if each["tag"]["number"] == number)
    specified = expanded(member)
    name = specified.pop("name")
    assert specified == derived(number)
    assert name.removeprefix("old").lower() == KINDS[number].__name__.lower()


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("ScriptJob", syntax_of(ScriptJob)),
        ("Result", syntax_of(Result)),
        ("Times", syntax_of(codec.Times)),
        ("ConsoleLine", None),
        ("State", None),
    ],
)
def test_a_part_of_a_file_is_as_specified(name: str, syntax: Any) -> None:
    specified = expanded(TYPES[name])
    if name == "State":
        assert specified == {"type": "SEQUENCE OF", "element": codec.STATE.node}
    elif name == "ConsoleLine":  # written by hand, in builder.execution
        assert [(member["name"], member["type"]) for member in specified["members"]] == [
            ("delta", "INTEGER"),
            ("line", "Text"),
        ]
    else:
        assert specified == syntax.node
