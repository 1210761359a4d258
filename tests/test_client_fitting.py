"""Tables that fit a terminal: what gives way, and that different names stay different."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_client.fitting import GAP, Column, fill, fit, share, shorten, width_of

NAMES = ["unikernel-dns-primary-git", "unikernel-dns-primary", "unikernel-dns-secondary-git", "unikernel-tunnel"]


@pytest.mark.parametrize(
    ("texts", "width", "shown"),
    [
        (["short", "a-much-longer-name"], 9, ["short", "a-mu…name"]),
        (["dns-primary-4.14", "dns-primary-5.1"], 9, ["dns-…4.14", "dns-…-5.1"]),
        (["build-of-one-x86", "build-of-two-x86"], 9, ["bu…ne-x86", "bu…wo-x86"]),
        (["daemon-debian-package", "daemon-freebs-package"], 12, ["daemon-d…age", "daemon-f…age"]),
        (["a" * 20 + "x" + "b" * 20, "a" * 20 + "y" + "b" * 20], 9, ["aaa…xbbb…", "aaa…ybbb…"]),
        (["日本語日本語", "日本語日本"], 5, ["日…語", "日…本"]),
    ],
)
def test_it_is_cut_where_it_differs(texts: list[str], width: int, shown: list[str]) -> None:
    assert shorten(texts, width) == shown


@given(texts=st.lists(st.text(st.sampled_from("ab-\u65e5\u0301"), max_size=30), max_size=8), width=st.integers(1, 20))
def test_what_is_shortened_fits(texts: list[str], width: int) -> None:
    shown = shorten(texts, width)
    assert len(shown) == len(texts)
    for text, short in zip(texts, shown, strict=True):
        assert width_of(short) <= width
        assert (short == text) is (width_of(text) <= width)


@given(
    begin=st.text(st.sampled_from("ab"), max_size=30),
    middles=st.tuples(*[st.text(st.sampled_from("cd"), min_size=1, max_size=8)] * 2),
    end=st.text(st.sampled_from("ab"), max_size=30),
    width=st.integers(5, 40),
)
def test_two_that_differ_stay_different(begin: str, middles: tuple[str, str], end: str, width: int) -> None:
    one, other = (begin + middle + end for middle in middles)
    shown = shorten([one, other], width)
    assert (shown[0] == shown[1]) is (one == other)


@given(needs=st.lists(st.integers(0, 50), max_size=6), room=st.integers(-5, 100))
def test_room_is_shared(needs: list[int], room: int) -> None:
    shares = share(needs, room)
    assert all(0 <= got <= need for got, need in zip(shares, needs, strict=True))
    assert sum(shares) == max(0, min(room, sum(needs)))
    short = [got for got, need in zip(shares, needs, strict=True) if got < need]
    assert max(short, default=0) - min(short, default=0) <= 1


COLUMNS = (
    Column("TIME", rigid=True, brief=lambda text: text[:2]),
    Column("NAME"),
    Column("NOTE", spare=1),
    Column("MORE", spare=2),
)


@pytest.mark.parametrize(
    ("width", "titles", "row"),
    [
        (100, "TIME NAME NOTE MORE", ["12:30", NAMES[0], "a note", "and more"]),
        (49, "TIME NAME NOTE MORE", ["12", NAMES[0], "a note", "and more"]),
        (42, "TIME NAME NOTE", ["12", NAMES[0], "a note"]),
        (36, "TIME NAME", ["12", NAMES[0]]),
        (20, "TIME NAME", ["12", "uni…rimary-git"]),
    ],
)
def test_columns_give_way_in_their_order(width: int, titles: str, row: list[str]) -> None:
    rows = [("12:30", name, "a note", "and more") for name in NAMES]
    found = fit(fill(COLUMNS, rows), width)
    assert [each.title for each in found] == titles.split()
    assert [each.texts[0] for each in found] == row
    assert sum(each.width for each in found) + GAP * (len(found) - 1) <= width


def test_a_column_without_a_word_goes_first() -> None:
    found = fit(fill(COLUMNS, [("12:30", name, "", "and more") for name in NAMES]), 45)
    assert [each.title for each in found] == ["TIME", "NAME", "MORE"]
