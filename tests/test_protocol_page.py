"""docs/protocol.md says what the code does: its tables and bytes are compared with it."""

import re
from pathlib import Path

from builder import codec, framing
from builder.connection import _TABLE, Side, State
from builder.messages import KINDS, Hello, Message, Role

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text("utf-8")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
NAMES = {kind.__name__: kind for kind in KINDS.values()}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def size(cell: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+) (\w+)", cell))


def test_the_table_of_messages() -> None:
    found = {int(tag): (NAMES[name], size(limit)) for tag, name, _, _, limit in rows("Messages")}
    assert found == {tag: (kind, kind.max_size) for tag, kind in KINDS.items()}


def test_the_table_of_a_connection() -> None:
    found: dict[tuple[State, Side], dict[type[Message], State]] = {}
    roles = {}
    turn = (State.OPEN, Side.PEER)
    for state, side, what, after in rows("A connection"):
        if state:
            turn = (State[state], Side[side.upper()])
        if what.startswith("Hello as "):
            roles[Role(what.removeprefix("Hello as "))] = State[after]
            found[turn] = {Hello: State.OPEN}
            continue
        found.setdefault(turn, {}).update({NAMES[name]: State[after] for name in what.split(", ")})
    assert found == _TABLE
    assert roles == {Role.CLIENT: State.CLIENT_HELLO, Role.WORKER: State.WORKER_HELLO}


def test_the_bytes_of_the_first_frame() -> None:
    block = PAGE.split("```", 2)[1]
    data = bytes.fromhex("".join(line.partition("#")[0] for line in block.splitlines()))
    assert data == framing.frame(codec.encode(Hello(role=Role.CLIENT, version=13)))
