"""docs/protocol.md says what the code does: its tables and bytes are compared with it."""

import itertools
import re
from pathlib import Path

import pytest

from builder import codec, framing
from builder.extension import order
from builder.extension.worker import WORKER
from builder.messages import KINDS, Hello, Kind, Role
from builder.order import OPENING, PROTOCOLS, Protocol, Side, State, Turn

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text("utf-8")
assert order.ALL, "its import makes all messages known"

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
NAMES = {kind.__name__: kind for kind in KINDS.values()}


def rows(begin: str) -> list[list[str]]:
    """Return the cells of the first table behind what a heading or a paragraph begins with, without its head."""
    lines = iter(PAGE.split(f"\n{begin}", 1)[1].splitlines())
    table = [next(line for line in lines if line.startswith("|"))]
    table += itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def size(cell: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+) (\w+)", cell))


def test_the_table_of_messages() -> None:
    found = {
        int(tag): (NAMES[name], size(limit))
        for tag, name, _, _, limit in [*rows("## Messages\n"), *rows("## Our own messages\n")]
    }
    assert found == {tag: (kind, kind.max_size) for tag, kind in KINDS.items()}


@pytest.mark.parametrize(
    ("begin", "spoken"),
    [
        ("## A connection\n", {"": OPENING, "client": PROTOCOLS[Role.CLIENT, 13], "worker": PROTOCOLS[Role.WORKER, 5]}),
        ("**Working.** ", {"worker": WORKER}),
    ],
)
def test_the_table_of_a_connection(begin: str, spoken: dict[str, Protocol]) -> None:
    found: dict[str, dict[Side, dict[State, dict[Kind, Turn]]]] = {}
    at = ["", "", ""]
    for *where, what, after, others in rows(begin):
        at = [here or before for here, before in zip(where, at, strict=True)]
        role, side, state = at
        turn = Turn(State[after], State[others] if others else None)
        table = found.setdefault(role, {Side.PEER: {}, Side.SERVER: {}})[Side[side.upper()]]
        table.setdefault(State[state], {}).update({NAMES[name]: turn for name in what.split(", ")})
    assert found == {role: {Side.PEER: each.peer, Side.SERVER: each.server} for role, each in spoken.items()}


def test_the_bounds_of_elements() -> None:
    (sentence,) = re.findall(r"more elements than a\s+message can have: ([^.]*)\.", PAGE)
    bounds = re.findall(r"\d[\d ]*\d", sentence)
    assert {int(bound.replace(" ", "")) for bound in bounds} == {kind.max_elements for kind in KINDS.values()}


def test_the_bytes_of_the_first_frame() -> None:
    block = PAGE.split("```", 2)[1]
    data = bytes.fromhex("".join(line.partition("#")[0] for line in block.splitlines()))
    assert data == framing.frame(codec.encode(Hello(role=Role.CLIENT, version=13)))
