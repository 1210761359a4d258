import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.runtime import reversal
from builder.runtime.reversal import Reversal


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_lines_come_back_in_order(lines: list[bytes]) -> None:
    turned = Reversal()
    for line in reversed(lines):
        turned.add(line)
    assert b"".join(turned.pieces()) == b"".join(lines)
    turned.close()


@pytest.mark.parametrize(("count", "size"), [(1, 0), (1, 3_000_000), (5000, 1000), (200_000, 1)])
def test_many_blocks(count: int, size: int) -> None:
    lines = [number.to_bytes(4, "big") + b"x" * size for number in range(count)]
    turned = Reversal()
    for line in reversed(lines):
        turned.add(line)
    pieces = list(turned.pieces())
    turned.close()
    assert b"".join(pieces) == b"".join(lines)
    assert max(map(len, pieces)) <= reversal.BLOCK_SIZE + size + 4


def test_a_long_console_waits_in_a_file() -> None:
    line = b"x" * 1000
    turned = Reversal()
    for number in reversed(range(20_000)):
        turned.add(number.to_bytes(4, "big") + line)
    got = b"".join(turned.pieces())
    turned.close()
    assert len(got) > reversal.MEMORY_SIZE
    assert got == b"".join(number.to_bytes(4, "big") + line for number in range(20_000))
